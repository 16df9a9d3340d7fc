import JSON
import TestSupport
import Testing

/// Drafts from the command line.
@Suite struct SpeculationTests {
  static let model = Repository.model("tiny-deepseek-v3")
  static let mtp = ["--speculative-algorithm", "mtp"]
  static let problem =
    "There are 5 badges on the table in front of Tara. Vic gives Tara 6 more. How many badges does Tara have now?"

  @Test func generateReportsDrafts() throws {
    func generate(_ flags: [String]) throws -> Command {
      try Command.run(
        ["generate", "--model", Self.model, "--threads", "1", "--max-tokens", "12", Self.problem] + flags)
    }
    let plain = try generate([])
    #expect(plain.status == 0 && plain.errors.contains("latent nvfp4, rotary key bf16"), "\(plain.errors)")
    let drafted = try generate(
      Self.mtp + ["--speculative-num-draft-tokens", "2", "--speculative-draft-kv-cache-dtype", "fp8"])
    #expect(drafted.status == 0 && drafted.output == plain.output, "\(drafted.errors)")
    #expect(drafted.errors.contains("tokens a step; their layers keep fp8_e4m3 and bf16, 192 of the bytes a token"))
  }

  @Test(arguments: [
    (["--speculative-num-draft-tokens", "2"], "needs --speculative-algorithm mtp"),
    (["--speculative-draft-kv-cache-dtype", "fp8"], "needs --speculative-algorithm mtp"),
    (["--speculative-draft-kv-cache-dtype-rope", "fp8"], "needs --speculative-algorithm mtp"),
    (["--speculative-algorithm", "eagle"], "mtp"),
    (mtp + ["--speculative-num-draft-tokens", "0"], "expected 1 to 16"),
    (mtp + ["--speculative-num-draft-tokens", "17"], "expected 1 to 16"),
    (mtp + ["--speculative-draft-kv-cache-dtype", "q4_0"], "q4_0"),
    (mtp + ["--speculative-draft-kv-cache-dtype-rope", "int8"], "int8"),
  ])
  func refusesBadFlags(flags: [String], sentence: String) throws {
    let run = try Command.run(["generate", "--model", Self.model, "hello", "--max-tokens", "1"] + flags)
    #expect(run.status == 64 && run.output.isEmpty)
    #expect(run.errors.contains(sentence), "\(run.errors)")
  }

  /// Recipes of what a model doesn't store.
  @Test(arguments: [
    ("tiny-deepseek-v3", ["--kv-cache-dtype-v", "fp8"], "latent is key and value in one"),
    ("tiny-qwen3", ["--kv-cache-dtype-rope", "fp8"], "expected a model with latent attention"),
  ])
  func refusesRecipesOfNothing(model: String, flags: [String], sentence: String) throws {
    let folder = try TemporaryFolder()
    for command in [["generate", "hello"], ["logits", "--tokens", "1 2", "--output", folder.file("logits")]] {
      let run = try Command.run(command + ["--model", Repository.model(model)] + flags)
      #expect(run.status == 64 && run.errors.contains(sentence), "\(run.errors)")
    }
    let same = try Command.run(
      ["generate", "hello", "--max-tokens", "1", "--model", Self.model, "--kv-cache-dtype-v", "nvfp4"])
    #expect(same.status == 0, "\(same.errors)")
  }

  @Test func refusesModelsWithoutALayerForIt() throws {
    let run = try Command.run(["generate", "--model", Repository.model("tiny-qwen3"), "hello"] + Self.mtp)
    #expect(run.status == 65 && run.errors.contains("expected DeepSeek-V3 with a layer for it"), "\(run.errors)")
  }

  /// A prefix saved with drafts goes on with drafts, and says why it doesn't go on without.
  @Test func savedPrefixes() throws {
    let folder = try TemporaryFolder()
    let file = folder.file("prefix.kv")
    let flags = ["--model", Self.model, "--threads", "1"]
    let saved = try Command.run(["cache", "save", file, "One two three four five"] + flags + Self.mtp)
    #expect(
      saved.status == 0 && saved.errors.contains("latent nvfp4, rotary key bf16, 816 bytes each"), "\(saved.errors)")
    let loaded = try Command.run(["cache", "load", file, " six", "--max-tokens", "4"] + flags + Self.mtp)
    #expect(loaded.status == 0 && loaded.errors.contains("of them from the cache"), "\(loaded.errors)")
    let plain = try Command.run(["cache", "load", file, " six", "--max-tokens", "4"] + flags)
    #expect(plain.status == 65 && plain.errors.contains("draft_"), "\(plain.errors)")
  }

  @Test func measuresWhatDraftsBring() throws {
    let folder = try TemporaryFolder()
    let problems = try folder.write("problems.jsonl", #"{"prompt": "\#(Self.problem)", "answer": "11"}"#)
    let run = try Command.run([
      "bench", "speculation", "--model", Self.model, "--problems", problems, "--recipes", "nvfp4/fp8_e4m3", "--drafts",
      "1", "3", "--rounds", "1", "--max-tokens", "40", "--threads", "1", "--json",
    ])
    #expect(run.status == 0, "\(run.errors)")
    let rows = try JSONValue.parse(bytes: Array(run.output.utf8))
    for (index, drafts) in [0, 1, 3].enumerated() {
      #expect(rows[index]?["draft_tokens"]?.intValue == drafts && rows[index]?["same_answers"]?.intValue == 1)
      #expect(rows[index]?["right_answers"]?.intValue == 1)
    }
    #expect(try #require(rows[1]?["tokens_per_step"]?.doubleValue) > 1.5)
  }
}
