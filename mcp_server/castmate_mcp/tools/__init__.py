"""What agents can do, one subject a module; each adds its tools to a server."""
