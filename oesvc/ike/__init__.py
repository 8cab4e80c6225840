"""IKE without I/O: datagrams, events and the time go in; datagrams and events come out."""
