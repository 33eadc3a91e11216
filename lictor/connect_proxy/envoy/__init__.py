"""Envoy as a proxy of the mesh: from what a proxy needs to Envoy's configuration, and the xDS server that hands it out.

`snapshot` is the record of all that one proxy needs, `assembling` the read that makes it, `compiling` the pure function
from it to Envoy's resources, with a file for each kind of thing that is made. `session` holds what one Envoy has been
told and decides what to tell it next (pure); `server` is the gRPC around it. `bootstrap` writes the file that Envoy
starts with, and needs no gRPC.

Everything that imports gRPC or Envoy's messages (the extra `lictor[envoy]`) is imported by whoever opens the port, once
it is open or once the first Envoy calls. The rest of the program does without.
"""
