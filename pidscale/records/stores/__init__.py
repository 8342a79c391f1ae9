"""Where the files of a set lie: a folder of this machine, or an address of an object store."""
