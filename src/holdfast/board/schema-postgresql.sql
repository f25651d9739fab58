-- The board's own tables, beside those of holdfast in the same database, so that one transaction covers both.

CREATE COLLATION board_name (provider = icu, locale = 'und-u-ks-level2', deterministic = false);  -- Ann is ann

CREATE TABLE users (
  id    text COLLATE "C" PRIMARY KEY,
  name  text COLLATE board_name NOT NULL UNIQUE,
  email text UNIQUE
);

CREATE TABLE boards (
  id         text COLLATE "C" PRIMARY KEY,
  name       text NOT NULL,
  created_at text COLLATE "C" NOT NULL
);

CREATE TABLE lists (
  id       text COLLATE "C" PRIMARY KEY,
  board_id text COLLATE "C" NOT NULL REFERENCES boards (id) ON DELETE CASCADE,
  name     text NOT NULL,
  position integer NOT NULL          -- 0-based and dense within its board
);
CREATE INDEX lists_by_board ON lists (board_id, position);

CREATE TABLE tasks (
  id          text COLLATE "C" PRIMARY KEY,
  list_id     text COLLATE "C" NOT NULL REFERENCES lists (id) ON DELETE CASCADE,
  title       text NOT NULL,
  description text,
  assignee_id text COLLATE "C" REFERENCES users (id),
  position    integer NOT NULL,      -- 0-based and dense within its list
  created_at  text COLLATE "C" NOT NULL,
  updated_at  text COLLATE "C" NOT NULL
);
CREATE INDEX tasks_by_list ON tasks (list_id, position);
CREATE INDEX tasks_by_update ON tasks (updated_at);
