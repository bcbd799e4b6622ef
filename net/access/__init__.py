"""How connections are kept private, and who is let in: TLS and tokens, for whoever dials and whoever listens.

`credentials.py` is what this side shows when it dials, `tls.py` the contexts of both sides and the accepting of
connections that begin with a handshake, `settings.py` what a node is told by its operator, `guard.py` whom it lets in.
The decisions themselves are `bezant.protocol.access`.
"""
