"""Castmate for LLM agents: the MCP server."""
