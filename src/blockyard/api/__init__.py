"""The API and what is served with it: REST under /api/v1, and the console's files.

service.py is what `blockyard serve` knows of it. FastAPI and uvicorn are imported when it begins to listen, and not before: who
serves a disk without an API waits for neither.
"""
