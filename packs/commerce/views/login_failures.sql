-- Whose password is being guessed? Three or more failed logins of a user within a minute.
--
-- Grain:       minute and user.
-- Event time:  logins.ts, tumbling windows of 1 minute.
-- Lateness:    the table's (5 seconds).
-- Size:        only the suspicious ones.
CREATE MATERIALIZED VIEW login_failures AS
SELECT window_start, user_id, COUNT(*) AS failures, COUNT(DISTINCT ip) AS addresses
FROM TUMBLE(logins, ts, INTERVAL '1 minute')
WHERE outcome = 'fail'
GROUP BY window_start, window_end, user_id
HAVING COUNT(*) >= 3;
