"""Image sources behind one interface: in process, through Triton, hosted."""
