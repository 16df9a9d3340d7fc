import JSON
import TestSupport
import Testing

@Suite struct AccuracyTests {
  static let problems = "\(Repository.path)/Evaluation/word_problems.jsonl"
  static let text = "\(Repository.path)/Evaluation/text.jsonl"

  /// An exact cache has no divergence; four bits have some.
  @Test(arguments: ["tiny-qwen3", "tiny-deepseek-v3"]) func comparesRecipes(model: String) throws {
    let folder = try TemporaryFolder()
    let problem = try folder.write(
      "problem.jsonl",
      #"{"prompt": "Mia has 3 coins. Leo gives Mia 4 more. How many coins does Mia have now?", "answer": "7"}"#)
    let run = try Command.run([
      "bench", "accuracy", "--json", "--model", Repository.model(model), "--text", Self.text, "--problems",
      problem, "--limit", "1", "--text-tokens", "24", "--max-tokens", "40", "--recipes", "f32,nvfp4,bf16/mxfp4",
      "--threads", "1",
    ])
    #expect(run.status == 0, "\(run.errors)")
    let rows = try JSONValue.parse(bytes: Array(run.output.utf8))
    let divergences = (0..<3).map { rows[$0]?["divergence"]?.doubleValue ?? -1 }
    #expect(abs(divergences[0]) < 1e-6 && divergences[1] > 1e-5 && divergences[2] > 1e-5, "\(divergences)")
    #expect(rows[0]?["same_top_token"]?.doubleValue == 1 && rows[0]?["predictions"]?.intValue == 23)
    for index in 0..<3 {
      let perplexity = try #require(rows[index]?["perplexity"]?.doubleValue)
      #expect(perplexity > 1 && perplexity < 4096)
      #expect(rows[index]?["problems"]?.intValue == 1)
    }
    // Both models can do this without quantisation.
    #expect(rows[0]?["right_answers"]?.intValue == 1)
  }

  @Test(arguments: [
    ([], 64, "expected --problems FILE, --text FILE or both"),
    (["--text", "/nonexistent"], 65, "/nonexistent"), (["--text", Self.problems], 65, "a line without 'text'"),
    (["--problems", Self.text], 65, "a line without 'prompt' or 'answer'"),
    (["--text", Self.text, "--recipes", "q4_0"], 64, "try nvfp4"),
    (["--text", Self.text, "--recipes", "nvfp4/bf16/f32"], 64, "expected a recipe, or two with a slash"),
    (["--text", Self.text, "--text-tokens", "1"], 64, "--text-tokens from 2 on"),
  ])
  func refuses(arguments: [String], status: Int32, message: String) throws {
    let run = try Command.run(["bench", "accuracy"] + arguments)
    #expect(run.status == status && run.errors.contains(message), "\(run.errors)")
    #expect(run.output.isEmpty)
  }

  /// Scales with headroom are written and found again.
  @Test func calibratesWithHeadroom() throws {
    let folder = try TemporaryFolder()
    let path = folder.file("scales.json")
    let model = Repository.model("tiny-qwen3")
    let run = try Command.run([
      "calibrate", model, "--max-tokens", "20", "--headroom", "1.5", "--output", path, "--threads", "1",
    ])
    #expect(run.status == 0, "\(run.errors)")
    let written = try JSONValue.parse(bytes: Array(try readText(path).utf8))
    #expect(written["headroom"]?.doubleValue == 1.5)
    let amax = try #require(written["layers"]?["0"]?["k"]?.doubleValue)
    let plan = try Command.run(["generate", "--dry-run", "--json", "--kv-cache-scales", path, "Mia has 3 coins."])
    let key = try JSONValue.parse(bytes: Array(plan.output.utf8))["kv_scales"]?["layer_0_key"]
    let scale = try #require(key?["value"]?.doubleValue)
    #expect(abs(scale - 1.5 * amax / 2688) < 1e-6 * scale)
    #expect(key?["reason"]?.stringValue?.hasSuffix("times 1.5 of headroom") == true)
    #expect(try Command.run(["calibrate", model, "--headroom", "0.5"]).errors.contains("--headroom from 1 to 1024"))
  }
}
