// Builds and packs the SDK twice and checks the package that its users get: both archives must be identical, publint must find no
// problem, and TypeScript must find the types with every kind of module resolution.
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { publint } from "publint";
import { formatMessage } from "publint/utils";

const sdk = import.meta.dirname;
const target = resolve(sdk, "../build/sdk");
const scratch = mkdtempSync(join(tmpdir(), "sluice-sdk-"));

/** Run a program in a folder and return its output. */
const run = (folder, program, ...args) => execFileSync(program, args, { cwd: folder, encoding: "utf8" });

/** Build and pack into a folder; return the archive's path. */
const pack = (folder) => {
  mkdirSync(folder, { recursive: true });
  run(sdk, process.execPath, "build.js");
  const [packed] = JSON.parse(run(sdk, "npm", "pack", "--json", "--silent", "--pack-destination", folder));
  return join(folder, packed.filename);
};

/** Compile a module that uses the package; it throws with the compiler's messages. */
const compile = (resolution) => {
  const module = resolution === "bundler" ? "esnext" : resolution;
  const options = { strict: true, noEmit: true, target: "es2022", lib: ["es2022", "dom"], types: [], module, moduleResolution: resolution };
  writeFileSync(join(scratch, "tsconfig.json"), JSON.stringify({ compilerOptions: options, files: ["use.ts"] }));
  run(scratch, process.execPath, join(sdk, "node_modules/typescript/bin/tsc"), "-p", scratch);
};

try {
  rmSync(target, { recursive: true, force: true });
  const archive = pack(target);
  if (!readFileSync(archive).equals(readFileSync(pack(join(scratch, "again"))))) throw new Error("two builds of the package differ");

  const { messages, pkg } = await publint({ strict: true, pack: { tarball: new Uint8Array(readFileSync(archive)).buffer } });
  for (const message of messages) console.error(`${message.type}: ${formatMessage(message, pkg)}`);
  if (messages.length) throw new Error("publint found problems in the package");

  writeFileSync(join(scratch, "package.json"), JSON.stringify({ name: "user", private: true, type: "module" }));
  run(scratch, "npm", "install", "--silent", "--offline", "--no-audit", "--no-fund", archive);
  const used = readFileSync(join(sdk, "test/types.ts"), "utf8").split("\n").filter((line) => !/\b(built|promised)\b/.test(line));
  writeFileSync(join(scratch, "use.ts"), used.join("\n"));
  for (const resolution of ["bundler", "node16", "nodenext"]) compile(resolution);
  for (const name of ["README.md", "LICENSE", "dist/sluice.d.ts"]) readFileSync(join(scratch, "node_modules/@sluice/browser", name));
  console.log(`${archive}: two builds are identical; publint and TypeScript (bundler, node16, nodenext) found no problems`);
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
