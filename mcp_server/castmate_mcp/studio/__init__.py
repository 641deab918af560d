"""The studio: a page for people at `/` and `/studio`, over the public REST API alone."""
