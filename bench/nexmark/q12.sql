-- Processing-time windows: how many bids of a person arrived within ten seconds.
SELECT bidder, COUNT(*) AS bid_count, window_start, window_end
FROM TUMBLE(arriving_bid, p_time, INTERVAL '10 seconds')
GROUP BY bidder, window_start, window_end
