"""
Your own table, your own transaction: an order and the event that tells of it are committed together, or not at all.

    createdb orders
    DATABASE=postgresql:///orders holdfast serve --app-dir examples --port 8000 orders:app

    curl -N "localhost:8000/live/events?room=orders" &
    curl -X POST "localhost:8000/orders?what=tea"

Another program, in any language, does the same in SQL:

    BEGIN;
    INSERT INTO orders (what) VALUES ('coffee');
    SELECT holdfast_append('orders', 'ordered', '{"what": "coffee"}');
    COMMIT;
"""

import os

import psycopg
from fastapi import FastAPI, HTTPException

from holdfast import Hub

DATABASE = os.environ.get("DATABASE", "postgresql:///orders")
ORDERS = "CREATE TABLE orders (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, what text NOT NULL)"

hub = Hub(DATABASE, migrations=[ORDERS])
app = FastAPI(lifespan=hub.lifespan)
app.mount("/live", hub.app)


@app.post("/orders")
async def order(what: str) -> dict[str, object]:
    """Take an order, with the database library that the rest of this application uses."""
    async with await psycopg.AsyncConnection.connect(DATABASE) as connection:  # it commits at the end, or rolls back
        row = await (await connection.execute("INSERT INTO orders (what) VALUES (%s) RETURNING id", (what,))).fetchone()
        assert row is not None
        published = await hub.publish_in(connection, "orders", "ordered", {"number": row[0], "what": what})
        if what == "poison":
            raise HTTPException(422, "we do not sell this")  # nobody hears of it
    return {"number": row[0], "id": published.id}
