"""How Schemathesis sends the types of bodies that it does not know: as the text that they are."""

import schemathesis


@schemathesis.serializer("application/x-ndjson", "text/csv")
def as_text(_context, value):
    return value if isinstance(value, bytes) else str(value).encode()
