// Starts what the page does by itself. Each view is made by the server; the modules keep it up to date and send orders.
import { follow } from "./live.js";
import { listen as takeOrders } from "./orders.js";
import { listen as takeFiles } from "./submit.js";
import { begin as beginRefreshing } from "./refresh.js";
import { begin as tellTimes } from "./times.js";

tellTimes();
takeOrders();
takeFiles();
if (document.getElementById("connection")) follow(beginRefreshing());
