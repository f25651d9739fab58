-- What holdfast keeps beside the application's own tables. Everything begins with holdfast_.

CREATE TABLE holdfast_meta (
  key   TEXT PRIMARY KEY,     -- epoch, secret, inode, clock
  value TEXT NOT NULL
) WITHOUT ROWID;

-- A room's head outlives its log and is never deleted: who stood at the head has missed nothing.
CREATE TABLE holdfast_room (
  id   INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  head INTEGER NOT NULL
);

CREATE TABLE holdfast_log (
  room_id INTEGER NOT NULL,
  offset  INTEGER NOT NULL,   -- 1, 2, 3 … without holes, in the order of commits
  at      INTEGER NOT NULL,   -- microseconds since 1970
  type    TEXT NOT NULL,
  body    TEXT NOT NULL,      -- a JSON object
  PRIMARY KEY (room_id, offset)
) WITHOUT ROWID;

-- What a command that carried a key was answered, so that its retry is answered the same.
CREATE TABLE holdfast_verdict (
  user        TEXT NOT NULL,
  key         TEXT NOT NULL,
  fingerprint TEXT NOT NULL,  -- of the command: the same key with another one is a mistake
  at          INTEGER NOT NULL,
  refusal     TEXT,           -- the code of the refusal, or NULL for a success
  answer      TEXT NOT NULL,  -- JSON: the result, or the refusal's message and field
  published   TEXT NOT NULL,  -- JSON: room and offset of everything that was published
  PRIMARY KEY (user, key)
) WITHOUT ROWID;

-- Numbers for ids, never given twice.
CREATE TABLE holdfast_counter (
  name  TEXT PRIMARY KEY,
  value INTEGER NOT NULL
) WITHOUT ROWID;
