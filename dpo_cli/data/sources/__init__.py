"""Where rows come from: files, folders, saved data sets and the hub."""
