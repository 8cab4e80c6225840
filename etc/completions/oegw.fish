# fish completion of oegw: the program itself knows its words.
oegw completion fish | source
