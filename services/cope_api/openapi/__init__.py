"""The API's OpenAPI document: what every endpoint takes and answers, from one place.

To describe a new route, add one entry to the `OPERATIONS` of the module of its area (or of a new module, named in
`document.AREAS`), keyed by method and path as they stand at the route:

    "POST /v1/things/{thing_id}/poke": op("Things", THING, query={"hard": flag()}, body=record({"why": text()}))

`op` adds what all share: the key, path parameters, the errors of every call with a key (400, 401, 403, 500, 503), 404
where the path names something, 413 where there is a body. What else it may answer with is named: `errors=(422,)`.
The summary and description are the handler's docstring. Schemas are made with `shapes` (a `record` is an object; what
is in `optional` may be left out; `named` gives it a name of its own in the document).

`tests/api/test_openapi.py` fails for a route without an entry, an entry without a route, and a schema that is not one;
`tests/api/test_schemathesis.py` calls every endpoint and fails for an answer that is not as described here.
"""
