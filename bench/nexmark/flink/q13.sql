CREATE TABLE side_input (k BIGINT, v STRING) WITH ('connector' = 'filesystem', 'path' = '${UB_PATH}/side_input', 'format' = 'csv');
CREATE TABLE sink_q13 (auction BIGINT, bidder BIGINT, price BIGINT, date_time TIMESTAMP(3), v STRING) WITH ('connector' = 'blackhole');
INSERT INTO sink_q13
SELECT b.auction, b.bidder, b.price, b.date_time, s.v FROM bid b JOIN side_input s ON MOD(b.auction, 10000) = s.k
