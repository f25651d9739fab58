-- What holdfast keeps beside the application's own tables. Everything begins with holdfast_.

CREATE TABLE holdfast_meta (
  key   text PRIMARY KEY,     -- epoch, secret, home, words
  value text NOT NULL
);

-- A room's head outlives its log and is never deleted: who stood at the head has missed nothing.
CREATE TABLE holdfast_room (
  id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name text COLLATE "C" NOT NULL UNIQUE,
  head bigint NOT NULL DEFAULT 0,
  at   bigint NOT NULL DEFAULT 0    -- of the newest publication
) WITH (fillfactor = 50);           -- a head row is rewritten by every publication: room for that on its page

CREATE TABLE holdfast_log (
  room_id  bigint NOT NULL,
  "offset" bigint NOT NULL,   -- 1, 2, 3 … without holes, in the order of commits
  at       bigint NOT NULL,   -- microseconds since 1970
  type     text NOT NULL,
  body     text NOT NULL,     -- a JSON object
  xid      xid8 NOT NULL DEFAULT pg_current_xact_id(),  -- of the transaction that brought it: so nodes find what is new
  PRIMARY KEY (room_id, "offset")
);
CREATE INDEX holdfast_log_xid ON holdfast_log (xid);

-- What a command that carried a key was answered, so that its retry is answered the same.
CREATE TABLE holdfast_verdict (
  "user"      text NOT NULL,
  key         text NOT NULL,
  part        text NOT NULL,  -- which of the command's writes; empty: it is the only one
  fingerprint text NOT NULL,  -- of the command: the same key with another one is a mistake
  at          bigint NOT NULL,
  refusal     text,           -- the code of the refusal, or NULL for a success
  answer      text NOT NULL,  -- JSON: the result, or the refusal's message and field
  published   text NOT NULL,  -- JSON: room and offset of everything that was published
  PRIMARY KEY ("user", key, part)
);
CREATE INDEX holdfast_verdict_at ON holdfast_verdict (at);

-- How many batches each writer has committed: what became of a commit whose answer was lost stands here. (The status of its
-- transaction says it only until the server ends: ids of transactions that left nothing behind are then given again.)
CREATE TABLE holdfast_writer (
  id    text PRIMARY KEY,
  batch bigint NOT NULL,
  at    timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);

-- The nodes that are at work, each until its lease ends. What follows is of now, and need not outlive the server: a node that
-- finds it gone writes it again.
CREATE UNLOGGED TABLE holdfast_node (
  id    text PRIMARY KEY,
  until timestamptz NOT NULL,
  ends  boolean NOT NULL DEFAULT false  -- it has been told to: nobody is to be sent there any more
);

-- Who is in which room, at which node. Who has left stays for a minute, marked, so that all nodes hear of it.
CREATE UNLOGGED TABLE holdfast_people (
  room    text COLLATE "C" NOT NULL,
  session text COLLATE "C" NOT NULL,
  "user"  text NOT NULL,
  name    text NOT NULL,
  node    text NOT NULL,
  here    boolean NOT NULL,
  held    float8 NOT NULL,  -- by which claim of the session: the number of the client's link, or, if it counts none, seconds
                            -- since 1970 by this database's clock, when the node claimed it; 0: it has never been claimed
  xid     xid8 NOT NULL,
  at      timestamptz NOT NULL,
  PRIMARY KEY (room, session)
);
CREATE INDEX holdfast_people_session ON holdfast_people (session);
CREATE INDEX holdfast_people_xid ON holdfast_people (xid);

-- Who was asked to leave a room, or every one: that was acknowledged, and is not of now.
CREATE TABLE holdfast_expulsion (
  id     text PRIMARY KEY,  -- of whoever was asked: what is written down again, as its answer was lost, is the same
  "user" text NOT NULL,
  room   text,
  xid    xid8 NOT NULL DEFAULT pg_current_xact_id(),
  at     timestamptz NOT NULL DEFAULT now()
);

-- Empty. Who changes or publishes anything holds a weak lock on it; whoever was too late too often, a strong one.
CREATE TABLE holdfast_turn ();

-- Put publications into the logs, with the transaction that calls it, and return their offsets. Each room's head row is
-- locked until the commit, in the order of their names: so offsets are dense, and in the order of commits.
--
-- `given` says that the times are those of changes, which stand in the application's rows too: if a room has a later one
-- already, the transaction must be run again, later (40001). Otherwise the time is moved.
--
-- Rooms are found by index, however few they are: who has read a whole table conflicts with whoever publishes anywhere.
CREATE FUNCTION holdfast_append_many(names text[], types text[], bodies text[], times bigint[], given boolean)
RETURNS bigint[] LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
  newest bigint;
  offsets bigint[];
BEGIN
  IF current_setting('synchronous_commit') = 'off' THEN
    PERFORM set_config('synchronous_commit', 'on', true);  -- what is told to anybody may not be lost any more
  END IF;
  LOCK TABLE holdfast_turn IN ROW SHARE MODE;
  INSERT INTO holdfast_room (name) SELECT DISTINCT name FROM unnest(names) name ORDER BY name ON CONFLICT DO NOTHING;
  PERFORM 1 FROM holdfast_room WHERE name = ANY(names) ORDER BY name FOR UPDATE;
  IF given THEN
    SELECT max(room.at) INTO newest
      FROM unnest(names, times) published(name, at) JOIN holdfast_room room USING (name) WHERE published.at <= room.at;
    IF newest IS NOT NULL THEN
      RAISE EXCEPTION 'a room has a later publication' USING ERRCODE = 'serialization_failure', DETAIL = newest;
    END IF;
  END IF;
  WITH published AS (
    SELECT room.id, room.head + rank() OVER mine AS "offset", type, body, place,
           greatest(published.at, room.at + rank() OVER mine) AS at
      FROM unnest(names, types, bodies, times) WITH ORDINALITY published(name, type, body, at, place)
      JOIN holdfast_room room USING (name)
    WINDOW mine AS (PARTITION BY room.id ORDER BY place)
  ), logged AS (
    INSERT INTO holdfast_log (room_id, "offset", at, type, body) SELECT id, "offset", at, type, body FROM published
  ), moved AS (
    UPDATE holdfast_room room SET head = newest.head, at = newest.at
      FROM (SELECT id, max("offset") AS head, max(at) AS at FROM published GROUP BY id) newest WHERE newest.id = room.id
  )
  SELECT array_agg("offset" ORDER BY place) INTO offsets FROM published;
  RETURN offsets;
END $$;

-- Where this database is: in which cluster, on which timeline, and which of the tables of this name these are. A copy, a
-- restored one, and one that was promoted, perhaps with less than was acknowledged, are somewhere else.
CREATE FUNCTION holdfast_home() RETURNS text LANGUAGE sql AS $$
  SELECT concat_ws(':', system_identifier, substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8),
                   (SELECT oid FROM pg_database WHERE datname = current_database()), 'holdfast_meta'::regclass::oid)
    FROM pg_control_system()
$$;

-- Hint to all nodes that there is news in a room: to be called in the transaction that brings it.
CREATE FUNCTION holdfast_hint(room text) RETURNS void LANGUAGE sql AS $$
  SELECT pg_notify('holdfast_' || value, json_build_object('news', json_build_array(room))::text)
    FROM holdfast_meta WHERE key = 'epoch'
$$;

-- Publish in a transaction of your own: it and its event are committed together or not at all. Returns the offset. Whoever
-- publishes in the same room waits until your transaction has ended, so call it last.
--
-- It acts with the rights of the hub's own role, on the hub's own tables, whoever calls it, from wherever: so whoever may
-- call it (GRANT EXECUTE) need not be able to read what tokens are signed with.
--
-- Whoever knows where the log lives, and in which epoch, may say so (`home`), and is refused anywhere else.
CREATE FUNCTION holdfast_append(room text, type text, data jsonb, home text DEFAULT NULL)
RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
  words jsonb := (SELECT value FROM holdfast_meta WHERE key = 'words');  -- that are the protocol's own
  field text := (SELECT min(word) FROM jsonb_array_elements_text(words -> 'keys') word WHERE data ? word);
  complaint text := CASE
    WHEN room IS NULL OR length(room) NOT BETWEEN 1 AND 128 OR room !~ (words ->> 'room')
      THEN 'a room is a name of 1 to 128 printable characters'
    WHEN type IS NULL OR type !~ '^[A-Za-z0-9_.:-]{1,64}$'
      THEN 'an event''s type is 1 to 64 letters, digits and any of _.:-'
    WHEN words -> 'types' ? type
      THEN format('%L is a word of the protocol; call your event something else', type)
    WHEN jsonb_typeof(data) IS DISTINCT FROM 'object'
      THEN format('the data of %L must be an object, for it becomes one flat event', type)
    WHEN field IS NOT NULL
      THEN format('the data of %L has the field %L, which the protocol uses itself', type, field)
    WHEN octet_length(data::text) > 65536
      THEN format('a publication is at most 65536 bytes; this one has %s', octet_length(data::text))
    WHEN jsonb_path_exists(data, 'strict $.**{65}')
      THEN format('the data of %L is nested more than 64 deep', type)
    WHEN jsonb_path_exists(data, 'strict $.** ? (@ > 1e308 || @ < -1e308)')
      THEN format('the data of %L has a number beyond 1e308', type)
    END;
  offsets bigint[];
BEGIN
  IF home <> holdfast_home() || ':' || (SELECT value FROM holdfast_meta WHERE key = 'epoch') THEN
    RAISE EXCEPTION 'the log is not at %', home USING ERRCODE = 'object_not_in_prerequisite_state';
  END IF;
  IF complaint IS NOT NULL THEN
    RAISE EXCEPTION '%', complaint USING ERRCODE = 'invalid_parameter_value';
  END IF;
  offsets := holdfast_append_many(
    ARRAY[room], ARRAY[type], ARRAY[data::text],
    ARRAY[(extract(epoch FROM clock_timestamp()) * 1000000)::bigint], false
  );
  PERFORM holdfast_hint(room);
  RETURN offsets[1];
END $$;

REVOKE ALL ON FUNCTION holdfast_append(text, text, jsonb, text) FROM PUBLIC;
DO $$ BEGIN
  EXECUTE format('ALTER FUNCTION holdfast_append(text, text, jsonb, text) SET search_path = %I, pg_temp', current_schema());
END $$;
