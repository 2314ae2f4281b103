"""What schemathesis cannot know from the document: which targets there are, and what a row for them may say."""

import os

import schemathesis

KNOWN = os.environ["KNOWN_TARGET"]


def known(row):
    """A text may be any text by the schema, but a target is one of the last cycle's."""
    if isinstance(row, dict) and isinstance(row.get("target"), str):
        return {**row, "target": KNOWN}
    return row


@schemathesis.hook
def map_body(context, body):
    if context.operation.path == "/webhook/action" and isinstance(body, dict):
        # By the schema it may be in the future.
        return {name: value for name, value in body.items() if name != "time"}
    if context.operation.path == "/predict":
        return known(body)
    if context.operation.path == "/predict/batch" and isinstance(body, list):
        return [known(row) for row in body]
    return body
