-- What did each channel bring in the last hour, every ten seconds?
CREATE MATERIALIZED VIEW channel_marketing AS
SELECT window_end, channel, behavior, COUNT(*) AS events
FROM HOP(channel_events, ts, INTERVAL '10 seconds', INTERVAL '1 hour')
WHERE behavior <> 'uninstall'
GROUP BY window_start, window_end, channel, behavior
EMIT ON WINDOW CLOSE;
