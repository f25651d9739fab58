-- Who is where by the newest claim: when the node claimed the session. Seconds since 1970, by this database's clock.
ALTER TABLE holdfast_people ADD COLUMN held float8 NOT NULL DEFAULT 0;
