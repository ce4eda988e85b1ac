-- What has each user done so far?
--
-- Grain:       user.
-- Event time:  none; every row of the behavior table counts.
-- Size:        one row per user.
CREATE MATERIALIZED VIEW user_activity AS
SELECT user_id,
       COUNT(*) FILTER (WHERE action = 'browse') AS browse,
       COUNT(*) FILTER (WHERE action = 'add_to_cart') AS add_to_cart,
       COUNT(*) FILTER (WHERE action = 'purchase') AS purchase,
       MAX(ts) AS last_seen
FROM behavior
GROUP BY user_id;
