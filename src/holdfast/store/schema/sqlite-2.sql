-- A command may write several times, and its handler need not go the same way each time: each write is remembered by itself.

CREATE TABLE holdfast_verdict_2 (
  user        TEXT NOT NULL,
  key         TEXT NOT NULL,
  part        TEXT NOT NULL,  -- which of the command's writes; empty: it is the only one
  fingerprint TEXT NOT NULL,  -- of the command: the same key with another one is a mistake
  at          INTEGER NOT NULL,
  refusal     TEXT,           -- the code of the refusal, or NULL for a success
  answer      TEXT NOT NULL,  -- JSON: the result, or the refusal's message and field
  published   TEXT NOT NULL,  -- JSON: room and offset of everything that was published
  PRIMARY KEY (user, key, part)
) WITHOUT ROWID;

INSERT INTO holdfast_verdict_2 SELECT user, key, '', fingerprint, at, refusal, answer, published FROM holdfast_verdict;
DROP TABLE holdfast_verdict;
ALTER TABLE holdfast_verdict_2 RENAME TO holdfast_verdict;
CREATE INDEX holdfast_verdict_at ON holdfast_verdict (at);
