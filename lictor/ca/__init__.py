"""The mesh's certificate authority: certificates and requests for them, and the providers that sign.

May be imported from the floors above (`server` runs the authority, `agent` makes keys and requests); imports nothing of
Lictor but `model`. What is about certificates is pure: keys, serial numbers and the time are handed in. A provider may
talk to another program, as `vault` does, and then does nothing else.
"""
