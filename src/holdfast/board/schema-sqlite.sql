-- The board's own tables, beside those of holdfast in the same file, so that one transaction covers both.

CREATE TABLE users (
  id    TEXT PRIMARY KEY,
  name  TEXT NOT NULL UNIQUE COLLATE NOCASE,
  email TEXT UNIQUE
);

CREATE TABLE boards (
  id         TEXT PRIMARY KEY,
  name       TEXT NOT NULL,
  created_at TEXT NOT NULL
);

CREATE TABLE lists (
  id       TEXT PRIMARY KEY,
  board_id TEXT NOT NULL REFERENCES boards (id) ON DELETE CASCADE,
  name     TEXT NOT NULL,
  position INTEGER NOT NULL          -- 0-based and dense within its board
);
CREATE INDEX lists_by_board ON lists (board_id, position);

CREATE TABLE tasks (
  id          TEXT PRIMARY KEY,
  list_id     TEXT NOT NULL REFERENCES lists (id) ON DELETE CASCADE,
  title       TEXT NOT NULL,
  description TEXT,
  assignee_id TEXT REFERENCES users (id),
  position    INTEGER NOT NULL,      -- 0-based and dense within its list
  created_at  TEXT NOT NULL,
  updated_at  TEXT NOT NULL
);
CREATE INDEX tasks_by_list ON tasks (list_id, position);
CREATE INDEX tasks_by_update ON tasks (updated_at);
