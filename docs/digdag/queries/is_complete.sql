-- True once all of the account's rows that were received before the session's date are in the table or dead.
-- '*' stands for all tables.
-- To wait until no row is dead as well, add "and dead = 0".
select count(*) > 0
from sluice_watermarks
where TD_TIME_RANGE(time, '${session_date}', null, '${sluice.timezone}')
  and account = '${sluice.account}'
  and table_name in ('*', '${sluice.table}')
  and complete_before >= TD_TIME_PARSE('${session_date}', '${sluice.timezone}') * 1000
