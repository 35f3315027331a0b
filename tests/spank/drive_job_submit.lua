--[[
Runs job_submit.lua outside Slurm: arg[1] is its path; each line of standard input is a Lua table
{call = "submit" | "modify", job_desc = .., job_rec = .., part_list = .., uid = ..}; each answer is a few lines
`<what> <hex>` and an empty line. The `slurm` table is as slurmctld 22.05 makes it, formats included.
--]]

local heard

local function hears(what)
  return function(...) heard[#heard + 1] = { what, string.format(...) } end
end

slurm = {
  SUCCESS = 0,
  ERROR = -1,
  log_info = hears("info"),
  log_error = hears("error"),
  log_user = hears("user"),
}

heard = {}
assert(dofile(arg[1]) == slurm.SUCCESS)

local function say(what, text)
  io.write(what, " ", (tostring(text):gsub(".", function(c) return string.format("%02x", c:byte()) end)), "\n")
end

local function answer(rc, job_desc)
  say("rc", rc)
  for _, field in ipairs({ "licenses", "admin_comment" }) do
    if rawget(job_desc, field) ~= nil then say(field, job_desc[field]) end
  end
  for _, line in ipairs(heard) do say(line[1], line[2]) end
  io.write("\n")
  io.flush()
  heard = {}
end

answer(slurm.SUCCESS, {})

for line in io.lines() do
  local request = assert((loadstring or load)("return " .. line))()
  local job_desc = request.job_desc
  if job_desc.explode then -- a field whose reading fails, as a mistake of ours would
    setmetatable(job_desc, { __index = function(_, key) error("no " .. key) end })
  end
  if request.call == "submit" then
    answer(slurm_job_submit(job_desc, request.part_list, request.uid), job_desc)
  else
    answer(slurm_job_modify(job_desc, request.job_rec, request.part_list, request.uid), job_desc)
  end
end
