-- When a room's newest publication was committed outlives its log too.

ALTER TABLE holdfast_room ADD COLUMN at INTEGER NOT NULL DEFAULT 0;
UPDATE holdfast_room SET at = coalesce((SELECT max(at) FROM holdfast_log WHERE room_id = id), 0);
