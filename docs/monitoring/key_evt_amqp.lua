-- SPDX-License-Identifier: BSD-3-Clause
-- The numbers of INFO key_evt_amqp, for redis_exporter's flag -script, which
-- shows each pair that a script returns as redis_script_values{key="<name>"}.
-- Only reads; returns nothing where the module is not loaded.
local texts = {
	key_evt_amqp_broker_host = true,
	key_evt_amqp_last_error = true,
	key_evt_amqp_fallback_key = true,
}
local states = { 'disabled', 'idle', 'connecting', 'connected', 'blocked', 'backoff' }
local pairs_out = {}

local function put(name, value)
	pairs_out[#pairs_out + 1] = name
	pairs_out[#pairs_out + 1] = value
end

for name, value in string.gmatch(redis.call('INFO', 'key_evt_amqp'), '(key_evt_amqp_[%w_]+):([^\r\n]*)') do
	if name == 'key_evt_amqp_state' then
		-- One figure a state: 1 for the one that it is in.
		for _, state in ipairs(states) do
			put(name .. '_' .. state, state == value and '1' or '0')
		end
	elseif not texts[name] and tonumber(value) then
		put(name, value)
	end
end
return pairs_out
