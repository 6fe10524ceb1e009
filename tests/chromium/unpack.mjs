// Unpacks the packaged Chromium into TMPDIR and prints its path.
// The package brings the libraries that a bare machine lacks only where it takes itself to be in AWS Lambda.
process.env.AWS_EXECUTION_ENV = "AWS_Lambda_nodejs22.x";

const { default: chromium } = await import("@sparticuz/chromium");
console.log(await chromium.executablePath());
