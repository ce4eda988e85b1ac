-- What happens in the shop, minute by minute?
--
-- Grain:       minute and behaviour.
-- Event time:  user_behavior.ts, tumbling windows of 1 minute.
-- Lateness:    the table's (5 seconds).
-- Size:        up to 4 rows a minute.
CREATE MATERIALIZED VIEW behavior_per_minute AS
SELECT window_start, behavior, COUNT(*) AS cnt
FROM TUMBLE(user_behavior, ts, INTERVAL '1 minute')
GROUP BY window_start, window_end, behavior;
