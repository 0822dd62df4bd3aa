"""Two or more sweeps, cell by cell: what became faster, slower, broken or different, and in which phase."""
