SELECT channel, DATE_FORMAT(date_time, 'yyyy-MM-dd') AS d, MAX(DATE_FORMAT(date_time, 'HH:mm')) AS mi, COUNT(*) AS total,
  COUNT(*) FILTER (WHERE price < 10000) AS r1, COUNT(*) FILTER (WHERE price >= 10000 AND price < 1000000) AS r2, COUNT(*) FILTER (WHERE price >= 1000000) AS r3,
  COUNT(DISTINCT bidder) AS tb, COUNT(DISTINCT bidder) FILTER (WHERE price < 10000) AS b1, COUNT(DISTINCT bidder) FILTER (WHERE price >= 10000 AND price < 1000000) AS b2, COUNT(DISTINCT bidder) FILTER (WHERE price >= 1000000) AS b3,
  COUNT(DISTINCT auction) AS ta, COUNT(DISTINCT auction) FILTER (WHERE price < 10000) AS a1, COUNT(DISTINCT auction) FILTER (WHERE price >= 10000 AND price < 1000000) AS a2, COUNT(DISTINCT auction) FILTER (WHERE price >= 1000000) AS a3
FROM bid GROUP BY channel, DATE_FORMAT(date_time, 'yyyy-MM-dd')
