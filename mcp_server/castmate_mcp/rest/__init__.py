"""The WaveSpeed-compatible REST API: whoever calls the hosted model changes the base URL only."""
