--[[
job_submit.lua: gives every job its watts as a Slurm licence, and writes down what its owner allows.

  licences        watts:N beside the user's own; firm_watts:N for a firm job, which no plan may hold back
  admin_comment   slurm-power:class=flexible,cap=300,... as slurm_power/relocation/job_mark.py reads it

Slurm looks for this file beside slurm.conf. What differs between sites stands in slurm_power_site.lua beside it
(both are read when slurmctld starts and when this file changes). A mistake in here never fails a submission: each
entry point runs under pcall. Users' values are hostile: they are parsed strictly and never become a pattern or a format.
--]]

local defaults = {
  node_base_watts = 500, -- draw of a node with idle GPUs
  gpu_max_watts = 700, -- highest cap of a board; also what a job without --gpu-power-cap counts per GPU
  gpu_min_watts = 200, -- lowest cap of a board, the plugin's min_cap
  gpu_max_mhz = 1980,
  gpu_min_mhz = 345,
  gpus_per_node = 0, -- 0: unknown, then every job pays for whole nodes
  default_class = "flexible", -- of batch jobs that name none
  max_watts = 0, -- largest request of one job, the size of the pool; 0: no limit
  job_watts_file = "", -- what jobs of each owner and name drew, as [controller] job_watts_file; "": not used
  admin_uids = {}, -- who may set watts licences by hand beside root, such as { 64030 } for a controller's own user
}

local CLASSES = { firm = true, flexible = true, preemptible = true }
local OPTION_PREFIX = "_SLURM_SPANK_OPTION_slurm_power_"
local MAX_DELAY_S = 366 * 24 * 3600
local MAX_LICENSES = 2147483647
local UNSET_16, UNSET_32 = 65500, 4294967200 -- NO_VAL, INFINITE and their kin lie above

-- Users' text on its way to the log.
local function shown(text)
  return (tostring(text):sub(1, 80):gsub("[^\32-\126]", "?"))
end

-- What is wrong with a site's value, or nil.
local function objection(key, value)
  if defaults[key] == nil then return "unknown" end
  if type(value) ~= type(defaults[key]) then return "must be a " .. type(defaults[key]) end
  if type(value) == "number" and not (value >= 0 and value <= MAX_LICENSES) then return "must not be negative" end
  if key == "default_class" and not CLASSES[value] then return "must be firm, flexible or preemptible" end
  return nil
end

local function read_site(path)
  local site = {}
  for key, default in pairs(defaults) do site[key] = default end
  local file = io.open(path)
  if not file then return site end
  file:close()
  local readable, values = pcall(dofile, path)
  if not readable or type(values) ~= "table" then
    slurm.log_error("slurm-power: %s: unreadable, defaults apply: %s", path, shown(values))
    return site
  end
  for key, value in pairs(values) do
    local wrong = objection(key, value)
    if wrong then
      slurm.log_error("slurm-power: %s: %s %s; ignored", path, shown(key), wrong)
    else
      site[key] = value
    end
  end
  return site
end

local function site_path()
  return (debug.getinfo(1, "S").source:gsub("^@", ""):gsub("[^/]*$", "")) .. "slurm_power_site.lua"
end

local site = read_site(site_path())

------------------------------------------------------------------------ the options, by the rules of spank/parse.c

local function whole(text, lowest, highest)
  local value = #text <= 9 and text:match("^%d+$") and tonumber(text)
  return value and value >= lowest and value <= highest and value or nil
end

local function parse_cap(text)
  return whole((text:gsub("W$", "")), site.gpu_min_watts, site.gpu_max_watts)
end

local function parse_clock(text)
  return whole(text, site.gpu_min_mhz, site.gpu_max_mhz)
end

local function parse_class(text)
  return CLASSES[text] and text or nil
end

local function parse_slowdown(text)
  local decimals = text:match("^0%.(%d+)$")
  if not (text == "0" or (decimals and #decimals <= 6)) then return nil end
  local value = tonumber(text)
  return value and value <= 0.9 and value or nil
end

local function parse_delay(text)
  local days, clock = text:match("^(%d+)%-(.+)$")
  local fields = {}
  clock = clock or text
  if (days and #days > 9) or not clock:match("^%d+[%d:]*$") or clock:match("::") or clock:match(":$") then return nil end
  for digits in clock:gmatch("%d+") do
    if #digits > (#fields == 0 and 9 or 2) then return nil end
    fields[#fields + 1] = tonumber(digits)
  end
  local count = #fields
  if count > 3 or (fields[2] or 0) > 59 or (fields[3] or 0) > 59 or (days and fields[1] > 23) then return nil end
  local delay_s
  if days then
    delay_s = tonumber(days) * 86400 + fields[1] * 3600 + (fields[2] or 0) * 60 + (fields[3] or 0)
  elseif count == 3 then
    delay_s = fields[1] * 3600 + fields[2] * 60 + fields[3]
  else
    delay_s = fields[1] * 60 + (fields[2] or 0)
  end
  return delay_s <= MAX_DELAY_S and delay_s or nil
end

local OPTIONS = { -- in the order of the mark; `enforced`: the node must see it too, so only Slurm's own channel counts
  { key = "class", name = "power_class", parse = parse_class },
  { key = "cap", name = "gpu_power_cap", parse = parse_cap, enforced = true },
  { key = "clock", name = "gpu_clock", parse = parse_clock, enforced = true },
  { key = "slowdown", name = "power_max_slowdown", parse = parse_slowdown },
  { key = "delay", name = "power_max_delay", parse = parse_delay },
}

-- What sbatch's plugin handed over, by option name. A name that stands there twice was tampered with: nobody knows
-- which one the node will obey, so neither counts.
local function spank_texts(job_desc)
  local texts, seen = {}, {}
  for _, line in pairs(job_desc.spank_job_env or {}) do
    local name, text = line:match("^([%w_]+)=(.*)$")
    if name and name:sub(1, #OPTION_PREFIX) == OPTION_PREFIX then
      name = name:sub(#OPTION_PREFIX + 1)
      texts[name] = not seen[name] and text or nil
      seen[name] = true
    end
  end
  return texts
end

local function read_options(job_desc, batch)
  local texts, options = spank_texts(job_desc), {}
  local environment = batch and job_desc.environment or {}
  for _, option in ipairs(OPTIONS) do
    local text = texts[option.name]
    if text == nil and not option.enforced then text = environment["SLURM_SPANK_" .. OPTION_PREFIX .. option.name] end
    if text ~= nil then
      options[option.key] = option.parse(text)
      if options[option.key] == nil then
        slurm.log_info("slurm-power: ignored an invalid %s: %s", option.name, shown(text))
      end
    end
  end
  return options
end

------------------------------------------------------------------------ the watts

local function set(value, unset)
  return type(value) == "number" and value > 0 and value < unset and value or nil
end

-- GPUs in "gres:gpu:2", "gpu:h100:2", "gres/gpu=2", "gpu" and lists of them.
local function count_gpus(text)
  local gpus = 0
  for item in (text or ""):gmatch("[^,]+") do
    local rest = item:gsub("^gres[:/]", ""):match("^gpu(.*)$")
    if rest == "" then
      gpus = gpus + 1
    elseif rest and rest:match("^[:=]") then
      gpus = gpus + (tonumber(rest:match("[:=](%d+)$")) or 1)
    end
  end
  return gpus
end

local function count_nodes(size)
  local nodes = set(size.max_nodes, UNSET_32) or set(size.min_nodes, UNSET_32) or 1
  local tasks, per_node = set(size.num_tasks, UNSET_32), set(size.ntasks_per_node, UNSET_16)
  if tasks and per_node then nodes = math.max(nodes, math.ceil(tasks / per_node)) end
  return nodes
end

local function total_gpus(size, nodes)
  local tasks = set(size.num_tasks, UNSET_32) or 1
  local whole_job = count_gpus(size.tres_per_job)
  if whole_job > 0 then return whole_job end
  local per_gpu = set(size.ntasks_per_tres, UNSET_16)
  return math.max(
    count_gpus(size.tres_per_node) * nodes,
    count_gpus(size.tres_per_socket) * nodes * (set(size.sockets_per_node, UNSET_16) or 1),
    count_gpus(size.tres_per_task) * tasks,
    per_gpu and math.ceil(tasks / per_gpu) or 0
  )
end

-- The part of its nodes that a job takes: by GPUs, or by CPUs where it asks for no GPU.
local function node_share(size, gpus, nodes, cpus_per_node)
  if size.shared == 0 then return nodes end -- --exclusive
  local share = nodes
  if gpus > 0 then
    if site.gpus_per_node > 0 then share = gpus / site.gpus_per_node end
  elseif cpus_per_node then
    local cpus = set(size.min_cpus, UNSET_32) or set(size.num_tasks, UNSET_32) or 1
    share = cpus / cpus_per_node
  end
  return gpus > 0 and share or math.min(share, nodes)
end

local function cpus_per_node(part_list, name)
  for part_name, part in pairs(part_list or {}) do
    if part_name == name or (name == nil and part.flag_default == 1) then
      local cpus, nodes = set(part.total_cpus, UNSET_32), set(part.total_nodes, UNSET_32)
      return cpus and nodes and cpus / nodes or nil
    end
  end
  return nil
end

local function job_watts(size, cap, part_list)
  local nodes = count_nodes(size)
  local gpus = total_gpus(size, nodes)
  local share = node_share(size, gpus, nodes, cpus_per_node(part_list, size.partition))
  local watts = math.ceil(share * site.node_base_watts + gpus * (cap or site.gpu_max_watts))
  if site.max_watts > 0 then watts = math.min(watts, site.max_watts) end
  return math.min(math.max(watts, 1), MAX_LICENSES), gpus
end

------------------------------------------------------------------------ what earlier jobs drew

local REREAD_S = 10
local drawn, drawn_read_s = {}, nil

-- Lines of uid, name and watts per GPU; a line that is anything else is left out.
local function read_drawn()
  local now_s = os.time()
  if drawn_read_s and math.abs(now_s - drawn_read_s) < REREAD_S then return end
  drawn, drawn_read_s = {}, now_s
  local file = io.open(site.job_watts_file)
  if not file then return end
  for line in file:lines() do
    local uid, name, watts = line:match("^(%d+) (%S+) (%d+)$")
    if uid then drawn[uid .. " " .. name] = tonumber(watts) end
  end
  file:close()
end

-- As slurm_power/relocation/job_watts.py: name_key.
local function known_name(name)
  local key = (name or ""):gsub("%d+", "#")
  return #key >= 1 and #key <= 64 and key:match("^[%w_.#-]+$") and key or "*"
end

-- Watts per GPU, or nil: nothing is known, or no less than the board's maximum.
local function foreseen_watts(uid, name)
  if site.job_watts_file == "" then return nil end
  read_drawn()
  local owner = string.format("%d ", uid)
  local watts = drawn[owner .. known_name(name)] or drawn[owner .. "*"]
  return watts and watts < site.gpu_max_watts and math.max(watts, site.gpu_min_watts) or nil
end

------------------------------------------------------------------------ the licences and the mark

local function is_ours(license)
  local name = license:match("^%s*([^:=@*%s]+)")
  return name == "watts" or name == "firm_watts"
end

-- A licence list as (the user's own, ours).
local function split_licenses(text)
  local theirs, ours = {}, {}
  for license in (text or ""):gmatch("[^,;]+") do
    local list = is_ours(license) and ours or theirs
    list[#list + 1] = license
  end
  return table.concat(theirs, ","), table.concat(ours, ",")
end

local function joined(first, second)
  if first == "" or second == "" then return first .. second end
  return first .. "," .. second
end

local function plain(value)
  if type(value) ~= "number" then return value end
  return (string.format("%.6f", value):gsub("0+$", ""):gsub("%.$", ""))
end

local function with_mark(comment, options)
  local pairs_text = {}
  for _, option in ipairs(OPTIONS) do
    if options[option.key] ~= nil then
      pairs_text[#pairs_text + 1] = option.key .. "=" .. plain(options[option.key])
    end
  end
  if options.foreseen then pairs_text[#pairs_text + 1] = "foreseen=" .. plain(options.foreseen) end
  local bare = (comment or ""):gsub("slurm%-power:%S*", ""):gsub("^%s+", ""):gsub("%s+$", "")
  return ((bare == "" and "" or bare .. " ") .. "slurm-power:" .. table.concat(pairs_text, ","))
end

local function submit(job_desc, part_list, submit_uid)
  local batch = job_desc.script ~= nil and job_desc.script ~= ""
  local options = read_options(job_desc, batch)
  options.class = batch and (options.class or site.default_class) or "firm" -- interactive jobs are never touched
  local foreseen = foreseen_watts(submit_uid, job_desc.name)
  if foreseen and (options.cap == nil or foreseen < options.cap) then options.foreseen = foreseen end
  local watts, gpus = job_watts(job_desc, options.foreseen or options.cap, part_list)
  local theirs, lied = split_licenses(job_desc.licenses)
  if lied ~= "" then
    slurm.log_info("slurm-power: uid %d asked for %s itself; replaced", submit_uid, shown(lied))
  end
  local license = string.format("%s:%d", options.class == "firm" and "firm_watts" or "watts", watts)
  local comment = with_mark(job_desc.admin_comment, options)
  if count_gpus((job_desc.tres_freq or ""):gsub(":.*$", "")) > 0 then
    slurm.log_info("slurm-power: uid %d uses --gpu-freq, which resets our clocks when a step ends", submit_uid)
  end
  job_desc.licenses = joined(theirs, license)
  job_desc.admin_comment = comment
  slurm.log_info("slurm-power: uid %d: %s for %d GPUs, %s", submit_uid, license, gpus, comment)
end

------------------------------------------------------------------------ scontrol update

local PENDING = 0
local SIZE_FIELDS = {
  "min_nodes", "max_nodes", "num_tasks", "ntasks_per_node", "min_cpus", "sockets_per_node", "ntasks_per_tres",
  "tres_per_job", "tres_per_node", "tres_per_socket", "tres_per_task",
}
local NARROW = { ntasks_per_node = true, sockets_per_node = true, ntasks_per_tres = true }

-- The job's size after the update, and whether the update touches it.
local function updated_size(job_desc, job_rec)
  local size, changed = { partition = job_rec.partition, shared = job_desc.shared }, false
  for _, field in ipairs(SIZE_FIELDS) do
    local value = job_desc[field]
    if type(value) == "number" then value = set(value, NARROW[field] and UNSET_16 or UNSET_32) end
    if value ~= nil then
      size[field], changed = value, true
    else
      size[field] = job_rec[field]
    end
  end
  return size, changed
end

local function license_count(license)
  return tonumber(license:match("[:=*](%d+)")) or 0
end

-- Our licence after the update. A pending job that grows pays for it; none gets cheaper by an update of its owner.
local function updated_license(job_desc, job_rec, part_list)
  local _, ours = split_licenses(job_rec.licenses)
  local size, changed = updated_size(job_desc, job_rec)
  if not changed or job_rec.job_state ~= PENDING or ours == "" then return ours end
  local mark = (job_rec.admin_comment or ""):match("slurm%-power:(%S*)") or ""
  local each = tonumber(mark:match("foreseen=(%d+)") or mark:match("cap=(%d+)") or "")
  local watts = job_watts(size, each, part_list)
  if watts <= license_count(ours) then return ours end
  return string.format("%s:%d", ours:match("^[%a_]+"), watts)
end

local function is_admin(uid)
  for _, admin_uid in pairs(site.admin_uids) do
    if uid == admin_uid then return true end
  end
  return uid == 0
end

local function modify(job_desc, job_rec, part_list, modify_uid)
  if is_admin(modify_uid) then return end
  local _, old = split_licenses(job_rec.licenses)
  local ours = updated_license(job_desc, job_rec, part_list)
  if job_desc.licenses == nil and ours == old then return end
  local theirs, asked = split_licenses(job_desc.licenses or job_rec.licenses)
  if job_desc.licenses ~= nil and asked ~= "" and asked ~= old then
    slurm.log_user("slurm-power: only an administrator may set %s; kept %s", shown(asked), old)
  end
  job_desc.licenses = joined(theirs, ours)
  slurm.log_info("slurm-power: uid %d updated job %d: licences %s", modify_uid, job_rec.job_id, job_desc.licenses)
end

------------------------------------------------------------------------ what Slurm calls

local function guarded(what, decide, ...)
  local fine, problem = pcall(decide, ...)
  if not fine then pcall(slurm.log_error, "slurm-power: %s left alone after a mistake of ours: %s", what, shown(problem)) end
  return slurm.SUCCESS
end

function slurm_job_submit(job_desc, part_list, submit_uid)
  return guarded("a submission", submit, job_desc, part_list, submit_uid)
end

function slurm_job_modify(job_desc, job_rec, part_list, modify_uid)
  return guarded("an update", modify, job_desc, job_rec, part_list, modify_uid)
end

return slurm.SUCCESS
