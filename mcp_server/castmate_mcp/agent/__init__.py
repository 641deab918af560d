"""The door for LLM agents: MCP, over stdio and HTTP."""
