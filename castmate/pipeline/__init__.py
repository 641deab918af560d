"""From a request to pictures, one subject a file; no array arithmetic on device data."""
