-- Comments that replace those in the files of their objects. A new version of an object brings its
-- own comment, so the next version of this file leaves the object out.

COMMENT ON FUNCTION orchestra.answer_places() IS
    'The places in a model''s response that hold answers, as JSON paths by API (see the reference '
    'of model calls).';
COMMENT ON FUNCTION orchestra.answer_text(jsonb) IS
    'The visible answer in a step''s outputs, without reasoning. The parts of a message and the '
    'events of a stream are joined without a separator; several choices are separated by a blank '
    'line. Null for an unknown shape, for an answer without text, and for more than 10,000 events.';
COMMENT ON FUNCTION orchestra.audio_places() IS
    'The places that hold audio outside the content of messages, as JSON paths by API (see the '
    'reference of model calls).';
COMMENT ON FUNCTION orchestra.bounded(numeric) IS
    'A sum of quantities as a bigint, at most 10^18, so that an implausible number cannot '
    'overflow.';
COMMENT ON FUNCTION orchestra.bucket_duration(integer) IS
    'The geometric mean of a bucket''s bounds in milliseconds. It differs by at most 2 % from '
    'every duration in the bucket. 0.5 for bucket 0.';
COMMENT ON TABLE orchestra.prices IS
    'Known prices of the models seen in calls, by service tier, length of the input and day. A '
    'model without a row has no known price.';
COMMENT ON COLUMN orchestra.prices.valid_from IS
    'First day (UTC) of the price; 0001-01-01: the price has no known start and applies to every '
    'earlier day.';
COMMENT ON COLUMN orchestra.prices.valid_until IS
    'First day (UTC) on which the price no longer applies; null: no known end.';
COMMENT ON COLUMN orchestra.prices.source IS
    'Where the price comes from: config, set (orchestra-etl prices set), added (this program''s '
    'own list, from the provider''s page) or default (the package genai-prices).';
COMMENT ON FUNCTION orchestra.call_cost(orchestra.usage, bigint, orchestra.prices) IS
    'The cost of this usage and this number of calls at these prices: each kind is charged at its '
    'own price (see charged), and each call at the price of a call. Null without prices, or if a '
    'used kind has no price; calls without usage cost nothing.';
COMMENT ON FUNCTION orchestra.call_parameters(jsonb) IS
    'The settings in a step''s inputs, such as temperature and max_tokens: the fields with known '
    'names (see parameter_names), and other numbers and booleans, except ids; null for an unknown '
    'shape.';
COMMENT ON FUNCTION orchestra.called_tools(jsonb) IS
    'The tools that a model calls in a step''s outputs, in the order of the calls, as objects with '
    'name and arguments; arguments that are a JSON text are parsed. Null if it calls none, or for '
    'an unknown shape.';
COMMENT ON FUNCTION orchestra.charged(orchestra.usage) IS
    'For each kind of usage, the quantity charged at its price: the reported quantity minus the '
    'parts with prices of their own, at least 0. No token is charged twice.';
COMMENT ON FUNCTION orchestra.content_parts(jsonb) IS
    'All parts that are objects, from every content in a model''s request or response.';
COMMENT ON FUNCTION orchestra.content_text(jsonb, text) IS
    'The text of a message''s content, which is a text or a list of parts, without reasoning; '
    'several texts are joined with the separator; null if there is no text.';
COMMENT ON FUNCTION orchestra.context_tier(bigint) IS
    'The highest price threshold that the input tokens of a call exceed, or 0; null for null. A '
    'price threshold is a number of input tokens above which published prices change.';
COMMENT ON FUNCTION orchestra.cost_parts(orchestra.usage, bigint, orchestra.prices) IS
    'The calculation of call_cost, as one row per charged kind: the quantity, the price, the '
    'number of units the price is for, and the cost, which is null if the kind has no price. The '
    'costs add up to call_cost.';
COMMENT ON FUNCTION orchestra.critical_path(
    timestamptz[], timestamptz[], timestamptz, timestamptz
) IS
    'The steps that a run waited for, found from its end: the step that ended last, then the step '
    'that ended last before that one started, and so on. Pass the steps in descending order of '
    'their ends. took: microseconds of each step on the path; waited: microseconds from the end of '
    'the previous step on the path to this step''s start; both are null for a step that is not on '
    'the path. Together with waited_at_end, they add up to the duration of the run.';
COMMENT ON FUNCTION orchestra.duration_bucket(double precision) IS
    'The bucket of a duration in milliseconds: bucket 0 is below 1 ms, and each further bucket '
    'ends 4 % higher; null for null and for negative durations.';
COMMENT ON FUNCTION orchestra.explain_cost(
    text, timestamptz, timestamptz, timestamptz, timestamptz
) IS
    'Why the cost of a workflow differs between two periods. The row baseline holds the cost of '
    'the baseline period; the other rows hold the parts of the difference, which add up to it '
    'exactly, for each currency. before and after: the factor in the baseline period and in the '
    'period.';
COMMENT ON FUNCTION orchestra.explain_cost(
    text, timestamptz, timestamptz, timestamptz, timestamptz, text, text, text
) IS
    'Like explain_cost with five arguments, only for the calls of one organisation, node or model; '
    'null: all. With an organisation, only its runs count.';
COMMENT ON FUNCTION orchestra.explain_duration(
    text, timestamptz, timestamptz, timestamptz, timestamptz
) IS
    'Why the mean duration of the successful runs of a workflow differs between two periods, in '
    'milliseconds. The row baseline holds the mean of the baseline period; the other rows hold the '
    'parts of the difference, which add up to it exactly: one per node on the critical path (see '
    'critical_path), and waiting. No row if a period has no such run.';
COMMENT ON FUNCTION orchestra.explain_failures(
    text, timestamptz, timestamptz, timestamptz, timestamptz
) IS
    'Why the number of failed and soft-failed steps of a workflow differs between two periods. The '
    'row baseline holds the number of the baseline period; the other rows hold the parts of the '
    'difference, which add up to it exactly: the number of runs, and the failures per run by node '
    'and pattern. before and after: the number of runs, or of failed steps.';
COMMENT ON FUNCTION orchestra.explained_calls(
    text, timestamptz, timestamptz, timestamptz, timestamptz
) IS
    'The calls of models in two periods of a workflow. Side 1 is the period since/until, side 0 '
    'the baseline. Whole hours are read from step_rollup, the rest from steps.';
COMMENT ON FUNCTION orchestra.explained_calls(
    text, timestamptz, timestamptz, timestamptz, timestamptz, text, text, text
) IS
    'Like explained_calls with five arguments, only for one organisation, node or model; null: '
    'all.';
COMMENT ON FUNCTION orchestra.explained_periods(
    text, timestamptz, timestamptz, timestamptz, timestamptz
) IS
    'The parts of two periods of a workflow in which one version was in force, with the number of '
    'runs that started in each. Side 1 is the period since/until, side 0 the baseline. Runs in '
    'whole hours are counted from rollups, the others from the table runs.';
COMMENT ON FUNCTION orchestra.explained_periods(
    text, timestamptz, timestamptz, timestamptz, timestamptz, text
) IS
    'Like explained_periods with five arguments, only for the runs of one organisation; null: all.';
COMMENT ON FUNCTION orchestra.failure_pattern(text) IS
    'A failure''s message with numbers, ids, times, addresses, names and quoted texts replaced; '
    'codes are kept. Failures of one kind have one pattern.';
COMMENT ON FUNCTION orchestra.image_places() IS
    'The places that hold images outside the content of messages, as JSON paths by API (see the '
    'reference of model calls).';
COMMENT ON FUNCTION orchestra.is_error(jsonb) IS
    'Whether a value in an error field is an error. Not errors: null, false, 0, a text that is no '
    'error (see is_error_text), and a list or object that contains only such values.';
COMMENT ON FUNCTION orchestra.is_unmetered(text, boolean, boolean, orchestra.usage) IS
    'Whether a step with this outcome is a call of a model without any known plausible usage, so '
    'that its cost is unknown.';
COMMENT ON FUNCTION orchestra.is_untotalled(text, boolean, boolean, orchestra.usage, bigint) IS
    'Whether a step with this outcome is a call of a model whose total tokens (see total_tokens) '
    'are not known. A call that is charged by time, pages or searches and reports no tokens counts '
    'as 0 tokens.';
COMMENT ON FUNCTION orchestra.lanes(timestamptz[], timestamptz[]) IS
    'For each interval, in the order of the starts, the first free lane, from 1. An interval whose '
    'end is null never ends.';
COMMENT ON FUNCTION orchestra.media_bodies(jsonb) IS
    'The requests of a model in a payload; if the payload has none, its responses.';
COMMENT ON FUNCTION orchestra.message_role(jsonb) IS
    'The role that wrote a message of a request (see the reference of model calls); null if the '
    'message names none.';
COMMENT ON FUNCTION orchestra.model_bodies(jsonb, text) IS
    'The requests or responses (the direction) in a payload, with their position, and whether an '
    'array contains them. The search covers the payload, its containers (see request_containers '
    'and response_containers) and the elements of arrays of at most 10,000 elements, to a depth of '
    '5.';
COMMENT ON FUNCTION orchestra.opened(jsonb) IS
    'A payload in the form that the other functions search. A JSON text with an object or an array '
    'is parsed; a stream that is kept as a text or as a list of lines becomes an array of its '
    'events; any other text becomes null; everything else is unchanged.';
COMMENT ON FUNCTION orchestra.outcome(text, jsonb, text) IS
    'How a step or run ended: its state, or soft_failed if the state is succeeded but the step or '
    'run carries an error, its own or one that its payload reports. Success rate: succeeded / '
    '(succeeded + soft_failed + failed).';
COMMENT ON FUNCTION orchestra.parameter_names() IS
    'The fields of a request that are settings (see the reference of model calls).';
COMMENT ON FUNCTION orchestra.partial_hours(timestamptz, timestamptz) IS
    'The parts of a period that are not whole hours (UTC): at most one at its start and one at its '
    'end.';
COMMENT ON FUNCTION orchestra.price_applies(orchestra.prices, text, integer, timestamptz) IS
    'Whether these prices of a model apply to a call with this service tier (null: standard) and '
    'context tier (null: 0) at this time.';
COMMENT ON FUNCTION orchestra.prompt_places() IS
    'The places in a model''s request that hold its messages or prompt, as JSON paths by API (see '
    'the reference of model calls).';
COMMENT ON FUNCTION orchestra.prompt_text(jsonb) IS
    'The prompt in a step''s inputs, without the system text: the text of the only message, or '
    'each message as "role: text", separated by blank lines; null for an unknown shape, for a '
    'request without text, and for more than 10,000 messages.';
COMMENT ON FUNCTION orchestra.request_containers() IS
    'The fields of a payload that can contain a request (see the reference of model calls).';
COMMENT ON FUNCTION orchestra.response_containers() IS
    'The fields of a payload that can contain a response (see the reference of model calls).';
COMMENT ON FUNCTION orchestra.search_error(jsonb, text) IS
    'The searched text of an error: the API''s own error, and the error that the payload reports.';
COMMENT ON FUNCTION orchestra.search_fold(text) IS
    'The text in lower case. A search compares folded texts.';
COMMENT ON FUNCTION orchestra.search_frequency(text) IS
    'Estimated number of inputs and outputs that contain a folded phrase, from a sample of about '
    '1,000 rows of each table; 0 before the first ANALYZE.';
COMMENT ON FUNCTION orchestra.search_key(text) IS
    'The text as the search index holds it: in lower case and ASCII only; other characters are '
    'mapped to ASCII.';
COMMENT ON FUNCTION orchestra.search_output(jsonb) IS
    'The searched text of an output: search_text, and the joined chunks of a streamed answer.';
COMMENT ON FUNCTION orchestra.search_pattern(text) IS
    'The LIKE pattern of a phrase. The key (search_key) of every text that contains the phrase '
    'matches it.';
COMMENT ON FUNCTION orchestra.search_prompt(jsonb) IS
    'The searched text of a prompt: the system text, then the prompt.';
COMMENT ON FUNCTION orchestra.search_snippet(text, text) IS
    'The first occurrence of a folded phrase in a text: the hit between « and », with 40 '
    'characters on each side, and its position in the snippet.';
COMMENT ON FUNCTION orchestra.search_text(jsonb) IS
    'The searched text of a value: its strings, each on lines of its own, without images and other '
    'base64, up to 1,000,000 characters.';
COMMENT ON FUNCTION orchestra.settings_names() IS
    'The fields of a request whose object holds settings (see the reference of model calls).';
COMMENT ON FUNCTION orchestra.stream_events(jsonb) IS
    'The events of a stream that is kept as a text or as a list of lines (server-sent events, or '
    'lines of JSON), as an array; null for anything else, if an event is not JSON, and beyond the '
    'limits of parsed_json.';
COMMENT ON FUNCTION orchestra.system_places() IS
    'The places in a model''s request that hold the system text, as JSON paths by API (see the '
    'reference of model calls).';
COMMENT ON FUNCTION orchestra.system_text(jsonb) IS
    'The system text in a step''s inputs: that of the request, and its system and developer '
    'messages, separated by blank lines; null if there is none, or for an unknown shape.';
COMMENT ON FUNCTION orchestra.tool_places() IS
    'The places in a model''s response that hold tool calls, as JSON paths by API (see the '
    'reference of model calls).';
COMMENT ON COLUMN orchestra.step_rollup.context_tier IS
    'For calls: the highest price threshold of input tokens that they exceed; 0 if they exceed '
    'none. A price threshold is a number of input tokens above which prices can change.';
COMMENT ON COLUMN orchestra.step_rollup.input_tokens IS
    'Input tokens, including those read from and written to a cache. Summed over the calls that '
    'report it; null if none of the calls reports it; 0 if there are no calls.';
COMMENT ON COLUMN orchestra.step_rollup.cached_input_tokens IS
    'Input tokens read from a cache, part of input_tokens. Summed over the calls that report it; '
    'null if none of the calls reports it; 0 if there are no calls.';
COMMENT ON COLUMN orchestra.step_rollup.output_tokens IS
    'Output tokens, including reasoning. Summed over the calls that report it; null if none of the '
    'calls reports it; 0 if there are no calls.';
COMMENT ON COLUMN orchestra.step_rollup.reasoning_tokens IS
    'Output tokens of reasoning, part of output_tokens. Summed over the calls that report it; null '
    'if none of the calls reports it; 0 if there are no calls.';
COMMENT ON COLUMN orchestra.step_rollup.total_tokens IS
    'Total tokens. Summed over the calls that report it; null if none of the calls reports it; 0 '
    'if there are no calls.';
COMMENT ON COLUMN orchestra.step_rollup.responses IS
    'Calls that report why the model stopped (see finish_reason). Null: there are no calls, or the '
    'row was computed before revision 0006 or by an older program.';
COMMENT ON COLUMN orchestra.step_rollup.cut_off_responses IS
    'Responses that ended because the model ran out of tokens (see is_cut_off); null if responses '
    'is null.';
COMMENT ON COLUMN orchestra.model_usage.workflow_name IS
    'The workflow''s name, or its id if it has no name.';
COMMENT ON COLUMN orchestra.model_usage.currency IS 'The currency of cost; null if cost is null.';
COMMENT ON COLUMN orchestra.model_usage.service_tier IS
    'The provider''s service tier. Null if the call names none: the standard price then applies.';
COMMENT ON COLUMN orchestra.model_usage.context_tier IS
    'The highest price threshold of input tokens that the calls exceed; 0 if they exceed none; '
    'null if unknown. A price threshold is a number of input tokens above which prices can change.';
COMMENT ON FUNCTION orchestra.without_reasoning(text) IS
    'An answer without the block <think> or <thinking> at its start; null if nothing follows the '
    'block, or if the block has no end.';
COMMENT ON AGGREGATE orchestra.duration_histogram(smallint[], integer[]) IS
    'Merges stored histograms of durations into one array, for histogram_quantile: the number of '
    'durations in each bucket, by the bucket''s number.';
COMMENT ON AGGREGATE orchestra.duration_quantile(smallint[], integer[], double precision) IS
    'A quantile of durations in milliseconds, from stored histograms, with an error of at most 2 '
    '%. Correct for any grouping, because it merges the histograms; averages of percentiles are '
    'not.';
COMMENT ON AGGREGATE orchestra.duration_quantile(integer, bigint, double precision) IS
    'A quantile of durations in milliseconds, from counts by bucket, with an error of at most 2 %. '
    'Correct for any grouping, because it merges the counts; averages of percentiles are not.';
COMMENT ON TABLE orchestra_etl.alert_episodes IS
    'One row for each time that an alert fired, muted or not.';
COMMENT ON COLUMN orchestra_etl.alert_episodes.subject IS
    'What the rule was evaluated for: the workflow''s id, followed by the node, model, '
    'organisation and label that the rule names.';
COMMENT ON COLUMN orchestra_etl.alert_episodes.resolved_at IS
    'When it was resolved; null: it still fires.';
COMMENT ON VIEW orchestra.alerts IS 'One row for each time that an alert fired, muted or not.';
COMMENT ON COLUMN orchestra.alerts.workflow_name IS
    'The workflow''s name, or its id if it has no name.';
COMMENT ON COLUMN orchestra.alerts.resolved_at IS 'When it was resolved; null: it still fires.';
COMMENT ON COLUMN orchestra.runs.user_id IS
    'The user who started the run; the API may mask it with asterisks.';
COMMENT ON COLUMN orchestra.runs.start_time IS 'When the run started, according to the API.';
COMMENT ON COLUMN orchestra.runs.end_time IS
    'When the run ended, according to the API; null while it runs.';
COMMENT ON COLUMN orchestra.runs.redaction_policy IS
    'Version of the redaction rules that were in force when this row was written; null: no rules.';
COMMENT ON COLUMN orchestra.runs.content_hash IS
    'Hash of the stored run. A run with an equal hash is not written again.';
COMMENT ON COLUMN orchestra.runs.updated_at IS
    'When the content of this row last changed. A read that finds no change leaves it as it is.';
COMMENT ON COLUMN orchestra.steps.workflow_id IS 'The workflow of the run.';
COMMENT ON COLUMN orchestra.steps.redaction_policy IS
    'Version of the redaction rules that were in force when this row and its payloads were '
    'written; null: no rules.';
COMMENT ON COLUMN orchestra.steps.content_hash IS
    'Hash of the step as received. A step with an equal hash is not written again.';
COMMENT ON COLUMN orchestra.steps.absent_since IS
    'Time since which the API''s response no longer contains this step; null while it does.';
COMMENT ON COLUMN orchestra.steps.updated_at IS
    'When the content of this row last changed. A read that finds no change leaves it as it is.';
COMMENT ON COLUMN orchestra.cost_differences.workflow_name IS
    'The workflow''s name, or its id if it has no name.';
COMMENT ON COLUMN orchestra.cost_differences.service_tier IS
    'The provider''s service tier. Null if the call names none: the standard price then applies.';
COMMENT ON COLUMN orchestra.cost_differences.currency IS
    'The currency of cost; null if cost is null.';
COMMENT ON COLUMN orchestra.cost_differences.difference IS
    'cost minus reported_cost; null if cost is null or not in US dollars.';
COMMENT ON COLUMN orchestra.cost_differences.ratio IS
    'cost divided by reported_cost; null if cost is null or not in US dollars, or if reported_cost '
    'is 0.';
COMMENT ON COLUMN orchestra_etl.dead_letters.id IS 'The dead letter''s id.';
COMMENT ON COLUMN orchestra_etl.gaps.before_time IS 'Start of the oldest run listed after the gap.';
COMMENT ON COLUMN orchestra_etl.gaps.detail IS 'What the sweep observed.';
COMMENT ON COLUMN orchestra_etl.run_ledger.workflow_id IS
    'Its workflow, according to the run list.';
COMMENT ON COLUMN orchestra_etl.run_ledger.opened_at IS
    'When tracking was last set to open. The run''s age is counted from here.';
COMMENT ON COLUMN orchestra_etl.run_ledger.listing IS
    'The run''s row of the run list, kept until a poll has loaded it.';
COMMENT ON COLUMN orchestra_etl.run_ledger.listing_hash IS
    'Hash of the run''s row when it was last seen, in the run list or in a response for this run '
    'alone.';
COMMENT ON COLUMN orchestra_etl.run_ledger.start_time IS
    'When the run started, according to the run list; null if no list has contained the run.';
COMMENT ON COLUMN orchestra_etl.run_ledger.listed_sweep IS
    'Number of the sweep that listed the run. If it is not above sweeps.watermark, a complete '
    'sweep has listed the run.';
COMMENT ON COLUMN orchestra_etl.run_ledger.due_at IS 'When the run is next polled; null: never.';
COMMENT ON COLUMN orchestra_etl.run_ledger.steps_observed_at IS
    'Database time of the request that returned the steps as they are stored.';
COMMENT ON COLUMN orchestra_etl.run_ledger.run_observed_at IS
    'Database time of the request that returned the run''s own row as it is stored.';
COMMENT ON COLUMN orchestra_etl.run_ledger.run_state IS
    'The run''s state in its own row of the API, as last loaded.';
COMMENT ON COLUMN orchestra_etl.run_ledger.run_end_time IS
    'The run''s end in its own row of the API, as last loaded.';
COMMENT ON COLUMN orchestra_etl.run_ledger.checks IS
    'Consecutive reads that found the run finished and nothing new.';
COMMENT ON COLUMN orchestra_etl.run_ledger.attempts IS 'Consecutive reads that failed.';
COMMENT ON COLUMN orchestra_etl.run_ledger.not_found_since IS
    'Time since which the API has returned 404 for the steps; null: it does not.';
COMMENT ON COLUMN orchestra_etl.run_ledger.reopened_by IS
    'What last requested a newer read of a run that was already known: list, config, track, '
    'reread, repair or states; null: nothing has.';
COMMENT ON COLUMN orchestra_etl.run_ledger.removed_at IS
    'When the run was erased or pruned. Afterwards, only its ids and times are kept.';
COMMENT ON COLUMN orchestra_etl.sweeps.leased_until IS
    'End of the running sweep''s lease; null: no sweep is running.';
COMMENT ON COLUMN orchestra_etl.sweeps.swept_at IS 'When the last complete sweep ended.';
COMMENT ON COLUMN orchestra_etl.sweeps.new_runs IS 'New runs that the last complete sweep found.';
COMMENT ON COLUMN orchestra_etl.sweeps.known_runs IS
    'Known runs of the workflow at the last walk of the whole list; more than listed_runs if the '
    'list has dropped runs.';
COMMENT ON COLUMN orchestra_etl.sweeps.last_error IS
    'Why the last sweep failed, in one line; null: it did not fail.';
COMMENT ON COLUMN orchestra_etl.sweeps.list_problem IS
    'How the run list deviates from the API''s description, found by the last walk to the end of '
    'the list; null: it does not deviate.';
COMMENT ON COLUMN orchestra_etl.sweeps.complete_until IS
    'When the last complete sweep began; null: no sweep has completed since this column was added.';
COMMENT ON VIEW orchestra.coverage IS
    'One row per workflow: the period in which every run is known, the gaps in it, how many runs '
    'have been read, and whether the API''s list still contains all known runs.';
COMMENT ON COLUMN orchestra.coverage.workflow_name IS 'The workflow''s name; null if it has none.';
COMMENT ON COLUMN orchestra.coverage.complete_until IS
    'When the last complete sweep began. Every run that started from complete_since to this time '
    'is known, except in gaps and except conflicting_runs.';
COMMENT ON COLUMN orchestra.coverage.lost_runs IS
    'Runs that the API no longer had before their steps were ever read.';
COMMENT ON COLUMN orchestra.coverage.swept_at IS 'When the last complete sweep ended.';
COMMENT ON COLUMN orchestra.coverage.new_runs IS 'New runs that the last complete sweep found.';
COMMENT ON COLUMN orchestra.coverage.window_full IS
    'Whether the last walk of the whole list found fewer runs than are known: the list is then '
    'full, and each new run pushes an old one out.';
COMMENT ON COLUMN orchestra.coverage.conflicting_runs IS
    'Runs that were set aside because another workflow has a run with the same id.';
COMMENT ON VIEW orchestra.failure_groups IS
    'Kinds of failures by workflow and node, over all stored runs. To choose a period, group the '
    'view failures instead.';
COMMENT ON COLUMN orchestra.failure_groups.workflow_name IS
    'The workflow''s name, or its id if it has no name.';
COMMENT ON COLUMN orchestra.failure_groups.last_time IS 'When the last of these steps started.';
COMMENT ON COLUMN orchestra.failures.workflow_name IS
    'The workflow''s name, or its id if it has no name.';
COMMENT ON VIEW orchestra.model_calls IS
    'One row per call of a model (see is_call): its usage, cost, prompt and answer. It shows '
    'payloads, so only orchestra_payload_analyst can read it. A text is null if its payload is not '
    'stored, if the payload holds no such text, or if the payload''s shape is not known. The '
    'loader counts unknown shapes as drift.';
COMMENT ON COLUMN orchestra.model_calls.workflow_name IS
    'The workflow''s name, or its id if it has no name.';
COMMENT ON COLUMN orchestra.model_calls.currency IS 'The currency of cost; null if cost is null.';
COMMENT ON COLUMN orchestra.model_calls.is_cut_off IS
    'Whether the model stopped because it ran out of tokens (see is_cut_off); null if '
    'finish_reason is null.';
COMMENT ON COLUMN orchestra.model_calls.prompt IS
    'The prompt, without the system text (see prompt_text).';
COMMENT ON COLUMN orchestra.model_calls.redaction_policy IS
    'Version of the redaction rules that were in force when the step and its payloads were '
    'written; null: no rules.';
COMMENT ON COLUMN orchestra.model_calls.updated_at IS
    'When the content of the step''s row last changed. A read that finds no change leaves it as it '
    'is.';
COMMENT ON COLUMN orchestra.step_rollup_daily.day IS 'The day (UTC) whose hours are added up.';
COMMENT ON COLUMN orchestra.step_rollup_daily.context_tier IS
    'For calls: the highest price threshold of input tokens that they exceed; 0 if they exceed '
    'none. A price threshold is a number of input tokens above which prices can change.';
COMMENT ON COLUMN orchestra.step_rollup_daily.input_tokens IS
    'Input tokens, including those read from and written to a cache. Summed over the calls that '
    'report it; null if none of the calls reports it; 0 if there are no calls.';
COMMENT ON COLUMN orchestra.step_rollup_daily.cached_input_tokens IS
    'Input tokens read from a cache, part of input_tokens. Summed over the calls that report it; '
    'null if none of the calls reports it; 0 if there are no calls.';
COMMENT ON COLUMN orchestra.step_rollup_daily.output_tokens IS
    'Output tokens, including reasoning. Summed over the calls that report it; null if none of the '
    'calls reports it; 0 if there are no calls.';
COMMENT ON COLUMN orchestra.step_rollup_daily.reasoning_tokens IS
    'Output tokens of reasoning, part of output_tokens. Summed over the calls that report it; null '
    'if none of the calls reports it; 0 if there are no calls.';
COMMENT ON COLUMN orchestra.step_rollup_daily.total_tokens IS
    'Total tokens. Summed over the calls that report it; null if none of the calls reports it; 0 '
    'if there are no calls.';
COMMENT ON COLUMN orchestra.node_daily.workflow_name IS
    'The workflow''s name, or its id if it has no name.';
COMMENT ON COLUMN orchestra.node_daily.total_tokens IS
    'Total tokens. Summed over the calls that report it; null if none of the calls reports it; 0 '
    'if there are no calls.';
COMMENT ON COLUMN orchestra.node_hourly.workflow_name IS
    'The workflow''s name, or its id if it has no name.';
COMMENT ON COLUMN orchestra.node_hourly.total_tokens IS
    'Total tokens. Summed over the calls that report it; null if none of the calls reports it; 0 '
    'if there are no calls.';
COMMENT ON COLUMN orchestra.workflow_hourly.workflow_name IS
    'The workflow''s name, or its id if it has no name.';
COMMENT ON COLUMN orchestra.open_runs.tracking IS
    'open: still polled; stale: open for too long, read once a day.';
COMMENT ON COLUMN orchestra.open_runs.start_time IS
    'When the run started; null if it has not started.';
COMMENT ON COLUMN orchestra.open_runs.age_ms IS
    'Milliseconds from the run''s start to observed_at; if the run has not started, from when it '
    'was first seen.';
COMMENT ON COLUMN orchestra.open_runs.observed_at IS
    'When the API last reported that the run had not ended. If the service has stopped, the run '
    'may have ended since then.';
COMMENT ON COLUMN orchestra_etl.changed_groups.cause IS 'SQLSTATE of the last failure.';
COMMENT ON COLUMN orchestra_etl.drift.occurrences IS
    'Number of loaded steps or runs that show the difference.';
COMMENT ON COLUMN orchestra_etl.drift.last_run_id IS 'The latest run that shows the difference.';
COMMENT ON COLUMN orchestra.pipeline_health.checked_at IS
    'The current time: when the transaction of this query began.';
COMMENT ON COLUMN orchestra.pipeline_health.swept_at IS
    'The oldest of the times at which each workflow''s last complete sweep ended; null: no sweep '
    'is complete. Workflows whose last sweep began more than a week before the latest one do not '
    'count.';
COMMENT ON COLUMN orchestra.pipeline_health.behind_seconds IS
    'Seconds from swept_at to checked_at.';
COMMENT ON COLUMN orchestra.pipeline_health.conflicting_runs IS
    'Runs that were set aside because another workflow has a run with the same id; including '
    'discarded ones.';
COMMENT ON VIEW orchestra.removed_runs IS
    'Runs that were erased or pruned here. Copies of runs and steps must remove them, too. A run '
    'that was never loaded, because it was older than the retention, also has a row here.';
COMMENT ON COLUMN orchestra.removed_runs.removed_at IS 'When the run was removed.';
COMMENT ON COLUMN orchestra.run_summary.workflow_version IS
    'Version of the workflow when the run started; null before the first version. A version begins '
    'when it was first seen, or earlier: at the workflow''s last change before that, if the API '
    'sends its time.';
COMMENT ON COLUMN orchestra.run_summary.outcome IS
    'The state; or soft_failed if the state is succeeded but the run carries an error or one of '
    'its steps soft-failed (see outcome). Success rate: succeeded / (succeeded + soft_failed + '
    'failed).';
COMMENT ON COLUMN orchestra.run_summary.first_failed_node IS
    'Node of the first step that failed; if none failed, of the first step that soft-failed.';
COMMENT ON COLUMN orchestra.run_summary.input_tokens IS
    'Input tokens, including those read from and written to a cache. Summed over the calls that '
    'report it; null if none of the calls reports it; 0 if there are no calls.';
COMMENT ON COLUMN orchestra.run_summary.output_tokens IS
    'Output tokens, including reasoning. Summed over the calls that report it; null if none of the '
    'calls reports it; 0 if there are no calls.';
COMMENT ON COLUMN orchestra.run_summary.cached_input_tokens IS
    'Input tokens read from a cache, part of input_tokens. Summed over the calls that report it; '
    'null if none of the calls reports it; 0 if there are no calls.';
COMMENT ON COLUMN orchestra.run_summary.reasoning_tokens IS
    'Output tokens of reasoning, part of output_tokens. Summed over the calls that report it; null '
    'if none of the calls reports it; 0 if there are no calls.';
COMMENT ON COLUMN orchestra.run_summary.total_tokens IS
    'Total tokens. Summed over the calls that report it; null if none of the calls reports it; 0 '
    'if there are no calls.';
COMMENT ON COLUMN orchestra.run_summary.updated_at IS
    'When the content of the run''s own row last changed. Changes of its steps do not count.';
COMMENT ON COLUMN orchestra.run_summary.observed_at IS
    'When the run''s row or its steps were last requested from the API. A run without an end had '
    'not ended at that time.';
COMMENT ON COLUMN orchestra.step_timeline.outcome IS
    'The state; or soft_failed if the state is succeeded but the step carries an error (see '
    'outcome).';
COMMENT ON COLUMN orchestra.step_timeline.offset_ms IS
    'Milliseconds from the start of the run to the start of the step. If the first step started '
    'before the run, they count from that step.';
COMMENT ON COLUMN orchestra.step_timeline.wait_ms IS
    'Milliseconds from the latest end of another step before this step''s start to this step''s '
    'start; from the start of the run if no step ended before.';
COMMENT ON COLUMN orchestra.step_timeline.lane IS
    'The lane in which to draw the step, from 1: the first free lane, so that steps of a lane do '
    'not overlap; null if the step has not started.';
COMMENT ON COLUMN orchestra.step_timeline.executions IS
    'Number of executions of the node in the run.';
COMMENT ON COLUMN orchestra.step_timeline.error IS
    'The message of the step''s error: the API''s own error, else the one that the step''s payload '
    'reports.';
COMMENT ON COLUMN orchestra.step_timeline.calls IS
    '1 if the step is a call of a model (see is_call), else 0.';
COMMENT ON COLUMN orchestra.step_timeline.currency IS 'The currency of cost; null if cost is null.';
COMMENT ON COLUMN orchestra.step_timeline.service_tier IS
    'The provider''s service tier. Null if the call names none: the standard price then applies.';
COMMENT ON COLUMN orchestra.step_timeline.cut_off IS
    'Whether the model stopped because it ran out of tokens (see is_cut_off); null if '
    'finish_reason is null.';
COMMENT ON COLUMN orchestra.step_timeline.observed_at IS
    'When the run''s steps were last requested from the API. A step without an end had not ended '
    'at that time.';
COMMENT ON COLUMN orchestra_etl.alert_evaluation.definitions IS
    'By rule and hash of its definition: when the definition was last evaluated, in seconds since '
    '1970. The time can be up to five minutes too early. Entries older than 15 minutes do not '
    'count.';
COMMENT ON TABLE orchestra_etl.alert_mutes IS
    'Muted rules. They are evaluated, but queue no messages.';
COMMENT ON COLUMN orchestra_etl.alert_mutes.muted_until IS
    'Time until which the rule queues no message.';
COMMENT ON COLUMN orchestra_etl.alert_mutes.muted_at IS
    'When the rule was muted, or when its mute was last repaired after a change of the clock.';
COMMENT ON COLUMN orchestra_etl.alert_notifications.subject IS
    'What the rule was evaluated for: the workflow''s id, followed by the node, model, '
    'organisation and label that the rule names.';
COMMENT ON COLUMN orchestra_etl.alert_notifications.sequence IS
    'Number of the firing that the message is about, as in alert_episodes.';
COMMENT ON COLUMN orchestra_etl.alert_notifications.channel IS
    'The channel that the message is sent to.';
COMMENT ON COLUMN orchestra_etl.alert_notifications.key IS
    'Identifier of the message, equal in every delivery, so that a receiver can detect a '
    'repetition.';
COMMENT ON COLUMN orchestra_etl.alert_notifications.content IS
    'The values and names in the message, from the evaluation.';
COMMENT ON COLUMN orchestra_etl.alert_notifications.next_attempt_at IS
    'When the next delivery is attempted; null: the message was delivered or abandoned.';
COMMENT ON COLUMN orchestra_etl.alert_notifications.leased_until IS
    'When the claim of the current attempt ends; null: no attempt is running.';
COMMENT ON COLUMN orchestra_etl.alert_notifications.delivered_at IS
    'When the message was delivered; null: it has not been delivered.';
COMMENT ON COLUMN orchestra_etl.alert_notifications.failure IS
    'Class of the last attempt''s error; null: no attempt failed, or the last one succeeded.';
COMMENT ON COLUMN orchestra_etl.alerts.subject IS
    'What the rule was evaluated for: the workflow''s id, followed by the node, model, '
    'organisation and label that the rule names.';
COMMENT ON COLUMN orchestra_etl.alerts.value IS
    'The metric, in seconds for durations; null: the metric has no value.';
COMMENT ON COLUMN orchestra_etl.alerts.threshold IS
    'The bound that the metric is compared with; null: unknown.';
COMMENT ON COLUMN orchestra_etl.alerts.reason IS
    'Why the rule could not be evaluated; null: it was evaluated. A firing alert continues to fire '
    'meanwhile.';
COMMENT ON COLUMN orchestra_etl.alerts.channels IS
    'The channels for which the message that the alert fires was queued.';
COMMENT ON COLUMN orchestra_etl.alerts.notified_at IS
    'When the last message was queued; null: no message was queued.';
COMMENT ON COLUMN orchestra_etl.alerts.sequence IS 'How many times the alert has fired.';
COMMENT ON TABLE orchestra_etl.export_days IS 'The days in the lake, each as of its last export.';
COMMENT ON COLUMN orchestra_etl.export_days.complete_until IS
    'Every run of the day that started before this time is in the lake, except in gaps; null: '
    'unknown.';
COMMENT ON COLUMN orchestra_etl.export_days.snapshot_ids IS
    'For each table of the lake: the snapshot that wrote the day.';
COMMENT ON COLUMN orchestra_etl.export_state.system_identifier IS
    'System identifier of the exported PostgreSQL cluster.';
COMMENT ON COLUMN orchestra_etl.export_state.database_oid IS 'The database''s OID in the cluster.';
COMMENT ON COLUMN orchestra_etl.export_state.snapshot IS
    'The transactions that the last complete export could see; null: no export is complete.';
COMMENT ON COLUMN orchestra_etl.export_state.whole_tables IS
    'For each table that is exported as a whole: digest of its rows at the last export.';
COMMENT ON COLUMN orchestra_etl.export_state.published IS
    'Whether the files version-hint.text name the tables'' metadata of the last commit.';
COMMENT ON COLUMN orchestra_etl.export_state.erased_runs IS
    'Total number of erased runs when the lake was last searched for erased runs.';
COMMENT ON COLUMN orchestra_etl.export_state.exported_at IS
    'When the last complete export ended; null: no export is complete.';
COMMENT ON COLUMN orchestra_etl.export_state.activated_at IS
    'When the queue changed_days was switched on.';
COMMENT ON COLUMN orchestra_etl.iceberg_tables.metadata_location IS
    'The table''s current metadata file.';
COMMENT ON COLUMN orchestra_etl.iceberg_tables.previous_metadata_location IS
    'The table''s previous metadata file.';
COMMENT ON COLUMN orchestra_etl.price_rules.model IS
    'The models that the rule applies to: a name in which * stands for any characters.';
COMMENT ON COLUMN orchestra_etl.price_rules.valid_from IS
    'First day (UTC) of the price; 0001-01-01: the price applies to every earlier day.';
COMMENT ON TABLE orchestra_etl.rebuilds IS
    'Progress of orchestra-etl rebuild, which derives the columns of stored steps again with newer '
    'rules.';
COMMENT ON COLUMN orchestra_etl.rebuilds.transform_version IS
    'Version of the rules that derive columns from payloads.';
COMMENT ON COLUMN orchestra_etl.rebuilds.after_step_id IS
    'Id of the last step that is done, in the order of ids; null: none yet.';
COMMENT ON COLUMN orchestra_etl.rebuilds.steps IS 'Steps done so far.';
COMMENT ON COLUMN orchestra_etl.rebuilds.started_at IS 'When the rebuild started; null: not yet.';
COMMENT ON COLUMN orchestra_etl.redaction_policies.rules IS
    'The rules of this version, without any key.';
COMMENT ON COLUMN orchestra_etl.redaction_policies.first_used_at IS
    'When the version was first in force.';
COMMENT ON COLUMN orchestra_etl.request_budget.refilled_at IS 'When available was last recomputed.';
COMMENT ON COLUMN orchestra_etl.request_budget.not_before IS
    'No replica sends a request before this time, because the server requested a pause; null: no '
    'pause.';
COMMENT ON TABLE orchestra_etl.resolved_prices IS
    'Hash of the inputs from which orchestra.prices was last computed. While they are unchanged, '
    'the prices are not computed again.';
COMMENT ON TABLE orchestra_etl.state_map IS
    'The configured mapping from statuses to states with which the stored states were computed.';
COMMENT ON COLUMN orchestra_etl.state_map.state IS
    'The state that the configuration maps the status to.';
