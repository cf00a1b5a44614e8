// A receiver of webhooks: Node's own HTTP server, and the official library for Standard
// Webhooks. It tells of each request in a line of JSON on stdout, after a first line that tells
// its URL, and ends when stdin does.
import { createHmac } from "node:crypto";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { isUtf8 } from "node:buffer";

const { Webhook } = createRequire(process.env.RECEIVER_MODULES + "/")("standardwebhooks");
const secret = process.env.RECEIVER_SECRET;

// The library takes bodies for UTF-8 text. What Standard Webhooks says holds for bytes, and
// this is what one who receives others has to write: all but the sum is still the library's.
class OverBytes extends Webhook {
	sign(id, timestamp, body) {
		const mac = createHmac("sha256", this.key);
		mac.update(`${id}.${Math.floor(timestamp.getTime() / 1000)}.`).update(body);
		return `v1,${mac.digest("base64")}`;
	}
}

function verify(body, headers) {
	const enough = isUtf8(body);
	try {
		new (enough ? Webhook : OverBytes)(secret).verify(body, headers, { jsonParse: false });
		return { verified: true, error: "", helped: !enough };
	} catch (e) {
		return { verified: false, error: String(e), helped: !enough };
	}
}

const server = createServer((request, response) => {
	const parts = [];
	request.on("data", (part) => parts.push(part));
	request.on("end", () => {
		const body = Buffer.concat(parts);
		const raw = request.rawHeaders;
		const headers = [];
		for (let i = 0; i < raw.length; i += 2) headers.push([raw[i], raw[i + 1]]);
		const result = verify(body, request.headers);
		const id = request.headers["webhook-id"] ?? "";
		process.stdout.write(JSON.stringify({ id, ...result, body: body.toString("base64"), headers }) + "\n");
		response.writeHead(result.verified ? 204 : 401, { "content-length": "0" }).end();
	});
});
server.listen(0, "127.0.0.1", () => {
	process.stdout.write(JSON.stringify({ url: `http://127.0.0.1:${server.address().port}/` }) + "\n");
});
process.stdin.on("end", () => process.exit(0)).resume();
