// One call of Paynow's official Node SDK: reads {base, id, key, call, ...} as JSON on stdin, prints the SDK's answer as JSON.
"use strict";

console.log = console.error; // the SDK logs its own errors there; stdout is for the answer alone

const constants = require("paynow/dist/constants");
const { Paynow } = require("paynow");

function paymentOf(paynow, { reference, authemail, items }) {
  const payment = paynow.createPayment(reference, authemail);
  for (const [title, amount] of items) payment.add(title, amount);
  return payment;
}

const calls = {
  initiate: (paynow, input) => paynow.send(paymentOf(paynow, input)),
  initiateMobile: (paynow, input) => paynow.sendMobile(paymentOf(paynow, input), input.phone, input.method),
  poll: (paynow, { pollurl }) => paynow.pollTransaction(pollurl),
  parse: (paynow, { body }) => paynow.parseStatusUpdate(body),
};

async function main() {
  const input = JSON.parse(require("fs").readFileSync(0, "utf8"));
  constants.URL_INITIATE_TRANSACTION = `${input.base}/interface/initiatetransaction`;
  constants.URL_INITIATE_MOBILE_TRANSACTION = `${input.base}/interface/remotetransaction`;
  const paynow = new Paynow(input.id, input.key, input.resulturl, input.returnurl);
  try {
    const answer = await calls[input.call](paynow, input);
    process.stdout.write(JSON.stringify({ answer: answer ?? null }));
  } catch (error) {
    process.stdout.write(JSON.stringify({ error: String(error.message) }));
  }
}

main();
