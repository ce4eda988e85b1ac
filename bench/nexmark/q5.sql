-- Hot items: the auctions with the most bids of the last ten seconds, every two seconds.
SELECT x.auction, x.num, x.window_start, x.window_end
FROM (
  SELECT auction, COUNT(*) AS num, window_start, window_end
  FROM HOP(bid, date_time, INTERVAL '2 seconds', INTERVAL '10 seconds')
  GROUP BY auction, window_start, window_end
) AS x
JOIN (
  SELECT MAX(num) AS maxn, window_start, window_end
  FROM (
    SELECT COUNT(*) AS num, window_start, window_end
    FROM HOP(bid, date_time, INTERVAL '2 seconds', INTERVAL '10 seconds')
    GROUP BY auction, window_start, window_end
  ) AS counts
  GROUP BY window_start, window_end
) AS m ON x.window_start = m.window_start AND x.window_end = m.window_end AND x.num >= m.maxn
