// Uploads and draws with WaveSpeed's JavaScript client: `drive.mjs PACKAGE BASE_URL KEY PICTURE`.
import { createRequire } from 'node:module'

const [name, baseUrl, key, picture] = process.argv.slice(2)
// The packages are where the command runs, not beside this file.
const { Client } = createRequire(`${process.cwd()}/`)(name)

const client = new Client(key, { baseUrl })
const report = { image: await client.upload(picture) }
const inputs = {
  prompt: 'waving on the beach',
  image: report.image,
  size: '512*512',
  seed: 7,
  num_inference_steps: 4
}
const model = 'wavespeed-ai/instant-character'
report.outputs = (await client.run(model, inputs, { pollInterval: 0.2 })).outputs
report.sync = (await client.run(model, inputs, { enableSyncMode: true })).outputs
try {
  await client.run(model, { ...inputs, num_images: 9 })
} catch (error) {
  report.refused = String(error)
}
console.log(JSON.stringify(report))
