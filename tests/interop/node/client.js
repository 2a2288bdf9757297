// A producer in Node: `node client.js LIBRARY BROKER BACKEND` sends the calls that stand as a JSON list on standard
// input, waits for their results and prints them as a JSON list. LIBRARY is celery-node or celery-ts.
"use strict";

const [library, broker, backend] = process.argv.slice(2);
const PATIENCE = 20000;

function withCeleryNode(calls) {
  const celery = require("celery-node");
  const client = celery.createClient(broker, backend);
  const sent = calls.map((call) => {
    client.conf.CELERY_QUEUE = call.queue || "celery";
    client.conf.TASK_PROTOCOL = call.protocol || 2;
    return client.createTask(call.task).applyAsync(call.args, call.kwargs);
  });
  const outcomes = sent.map((result) =>
    result.get(PATIENCE, 20).then(
      (value) => ({ id: result.taskId, value }),
      (error) => ({ id: result.taskId, state: error.message, exc_type: error.exc_type, exc_message: error.exc_message }),
    ),
  );
  return { outcomes, close: () => client.disconnect() };
}

async function withCeleryTs(calls) {
  const celery = require("celery-ts");
  const client = celery.createClient({ brokerUrl: broker, resultBackend: backend });
  // results that come before it listens are missed: on Redis, on RabbitMQ
  await client.backend.subscriber;
  await client.backend.consumerTag;
  const outcomes = calls.map((call) => {
    const { eta_in: etaIn, expires_in: expiresIn, ...options } = call.options || {};
    if (etaIn !== undefined) options.eta = new Date(Date.now() + etaIn * 1000);
    if (expiresIn !== undefined) options.expires = new Date(Date.now() + expiresIn * 1000);
    const task = client.createTask(call.task);
    const result = task.applyAsync({ args: call.args, kwargs: call.kwargs || {}, ...options });
    return result.get(PATIENCE).then(
      (value) => ({ id: result.taskId, value }),
      (error) => ({ id: result.taskId, state: "FAILURE", text: String(error) }),
    );
  });
  return { outcomes, close: () => client.end() };
}

async function main() {
  let text = "";
  for await (const chunk of process.stdin) text += chunk;
  const { outcomes, close } = await (library === "celery-ts" ? withCeleryTs : withCeleryNode)(JSON.parse(text));
  const found = await Promise.all(outcomes);
  await new Promise((done) => process.stdout.write(JSON.stringify(found), done));
  await Promise.race([Promise.resolve(close()).catch(() => {}), new Promise((done) => setTimeout(done, 500))]);
}

main().then(
  () => process.exit(0),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
