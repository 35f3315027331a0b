// Where the parts of the stream go.

import { prepareAdmin } from "./admin.js";
import { drawCharts, prepareCharts } from "./plan.js";
import { drawHeat, prepareHeat } from "./heat.js";
import { showLink, showMode, showTroubles } from "./header.js";
import { showBill, showFeed, showJobs, showPools } from "./lists.js";
import { listen } from "./stream.js";
import { showTiles } from "./tiles.js";

const SHOW = {
  now: (now) => { showMode(now); showTroubles(now); showTiles(); drawCharts(); },
  gpus: drawHeat,
  gpu_names: () => {},
  outlook: drawCharts,
  trail: drawCharts,
  jobs: showJobs,
  feed: showFeed,
  bill: (bill) => { showBill(bill); showTiles(); },
  pools: showPools,
};

prepareAdmin();
prepareCharts();
prepareHeat();
listen((name, content) => { SHOW[name](content); showLink(); });
setInterval(() => { showLink(); showTiles(); }, 1000);
