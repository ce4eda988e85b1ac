-- The three streams of the Nexmark benchmark. With a connector, a server makes the events itself:
-- CREATE SOURCE bid (...) WITH (connector = 'nexmark', nexmark.table.type = 'Bid', nexmark.event.num = 10000000).

CREATE TABLE person (
  id BIGINT,
  name TEXT,
  email_address TEXT,
  credit_card TEXT,
  city TEXT,
  state TEXT,
  date_time TIMESTAMP,
  extra TEXT,
  WATERMARK FOR date_time AS date_time - INTERVAL '4 seconds'
) APPEND ONLY;

CREATE TABLE auction (
  id BIGINT,
  item_name TEXT,
  description TEXT,
  initial_bid BIGINT,
  reserve BIGINT,
  date_time TIMESTAMP,
  expires TIMESTAMP,
  seller BIGINT,
  category BIGINT,
  extra TEXT,
  WATERMARK FOR date_time AS date_time - INTERVAL '4 seconds'
) APPEND ONLY;

CREATE TABLE bid (
  auction BIGINT,
  bidder BIGINT,
  price BIGINT,
  channel TEXT,
  url TEXT,
  date_time TIMESTAMP,
  extra TEXT,
  WATERMARK FOR date_time AS date_time - INTERVAL '4 seconds'
) APPEND ONLY;

-- The bids again as q12 sees them: by the time at which they arrive.
CREATE TABLE arriving_bid (
  bidder BIGINT,
  p_time TIMESTAMP DEFAULT now(),
  WATERMARK FOR p_time AS p_time
) APPEND ONLY;

-- The small table of q13: a line for each number below 10000.
CREATE TABLE side_input (
  key BIGINT PRIMARY KEY,
  value TEXT
);
