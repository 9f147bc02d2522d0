"""step-ca as the bridge meets it: client, tokens, provisioner key, template, check of what was issued.

Not responsible for deciding who gets a certificate, nor for remembering what was issued: that is the bridge's
registry. ``standin`` is an embedded CA that speaks the same HTTP API; nothing else here needs a web
framework.
"""
