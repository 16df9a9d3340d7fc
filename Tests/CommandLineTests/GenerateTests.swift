import JSON
import TestSupport
import Testing

/// The program as a user meets it: stdout, stderr, exit codes.
@Suite struct GenerateTests {
  static let question =
    "Mia has 24 coins. Leo gives Mia 18 more. Half of them go to Ben. How many coins does Mia have now?"

  /// The default model is found from another working directory; stdout carries the model's text and nothing else.
  @Test func answersFromAnywhere() throws {
    let run = try Command.run(["generate", Self.question], directory: "/")
    #expect(run.status == 0)
    #expect(run.output == "Mia starts with 24 coins.\n24 + 18 = 42\n42 / 2 = 21\n#### 21\n")
    for word in ["first token", "tokens/s", "K nvfp4, V nvfp4", "864 bytes a token", "3.56 times", "attention"] {
      #expect(run.errors.contains(word), "\(word) in \(run.errors)")
    }
  }

  @Test func json() throws {
    let run = try Command.run([
      "generate", "--json", "--kv-cache-dtype-k", "fp8", "--kv-cache-dtype-v", "blockfp4", Self.question,
    ])
    #expect(run.status == 0)
    let report = try JSONValue.parse(bytes: Array(run.output.utf8))
    #expect(report["text"]?.stringValue?.hasSuffix("#### 21") == true)
    #expect(report["finish_reason"]?.stringValue == "stop")
    #expect(report["prompt_tokens"]?.intValue == 40)
    #expect(report["token_ids"]?.arrayValue?.count == report["completion_tokens"]?.intValue)
    let cache = try #require(report["kv_cache"])
    #expect(cache["dtype_k"]?.stringValue == "fp8_e4m3")
    #expect(cache["dtype_v"]?.stringValue == "fp4_mx_block16")
    #expect(cache["bytes_per_token"]?.intValue == 6 * 2 * (64 + 36))
    #expect(cache["replaced_nonfinite"]?.intValue == 0)
  }

  /// A seeded sample comes again; stop strings and token limits end an answer.
  @Test func sampling() throws {
    let arguments = ["generate", "--temperature", "1.2", "--top-k", "50", "--seed", "7", Self.question]
    #expect(try Command.run(arguments).output == Command.run(arguments).output)
    let stopped = try Command.run(["generate", "--stop", "42", Self.question])
    #expect(stopped.output == "Mia starts with 24 coins.\n24 + 18 = \n")
    let short = try Command.run(["generate", "--json", "-n", "3", Self.question])
    #expect(try JSONValue.parse(bytes: Array(short.output.utf8))["finish_reason"]?.stringValue == "length")
  }

  /// The second turn finds the first one in the cache; commands don't reach the model. In bf16, because four bits round this very
  /// sum of a small model to another.
  @Test func chatKeepsItsHistory() throws {
    let run = try Command.run(
      ["chat", "--kv-cache-dtype", "bf16"],
      input: Array("\(Self.question)\nhello\n/stats\n/nonsense\n/quit\n".utf8))
    #expect(run.status == 0)
    #expect(run.output.hasPrefix("Mia starts with 24 coins.\n24 + 18 = 42\n"))
    #expect(run.errors.contains("of them from the cache"))
    #expect(run.errors.contains("unknown command '/nonsense'"))
  }
}

@Suite struct BadInputTests {
  struct Case: CustomTestStringConvertible, Sendable {
    let arguments: [String]
    let status: Int32
    let message: String
    var testDescription: String { arguments.joined(separator: " ") }

    init(_ arguments: [String], _ status: Int32, _ message: String) {
      self.arguments = arguments
      self.status = status
      self.message = message
    }
  }

  private static let huge = "9223372036854775807"

  static let cases = [
    Case(["generate", ""], 65, "the prompt is empty"),
    Case(["generate", "--model", "/nonexistent", "x"], 65, "no model folder at '/nonexistent'"),
    Case(["generate", "--kv-cache-dtype", "fp5", "x"], 64, "unknown KV cache dtype 'fp5'"),
    Case(["generate", "--attention-backend", "fa9", "x"], 64, "--attention-backend"),
    Case(["generate", "--page-size", "17", "x"], 64, "multiple of 16"),
    Case(["generate", "--temperature", "-1", "x"], 64, "temperature"),
    Case(["generate", "--max-tokens", "100000", "x"], 64, "context"),
    Case(["generate", "--max-total-tokens", "64", "--kv-cache-memory", "1GiB", "x"], 64, "one of"),
    Case(["generate", "--weight-dtype", "int3", "x"], 64, "weight dtype"),
    Case(["generate", "--threads", "0", "x"], 64, "--threads"),
    Case(["generate"], 64, "prompt"),
    Case(["logits", "--tokens", "1 2 99999", "--output", "/tmp/x.safetensors"], 65, "vocabulary"),
    Case(
      ["logits", "--tokens", "/nonexistent", "--output", "/tmp/x.safetensors"], 65,
      "--tokens takes a list of ids or a file that holds one; can't read '/nonexistent'"),
    Case(["logits", "--tokens", "1 2", "--output", "/nonexistent/x.safetensors"], 69, "can't write"),
    Case(["logits", "--tokens", "1 2", "--chunk-size", "0", "--output", "/tmp/x.safetensors"], 64, "--chunk-size"),
    Case(["formats", "verify", "/nonexistent"], 65, "/nonexistent"),
    Case(["inspect", "/nonexistent"], 65, "/nonexistent"),
    Case(["nonsense"], 64, "nonsense"),
    // Numbers whose sums and products overflow, and files that are none.
    Case(["logits", "--tokens", "1", "--output", "/tmp/x", "--page-size", huge], 64, "pages of \(huge) tokens"),
    Case(["logits", "--tokens", "/", "--output", "/tmp/x.safetensors"], 65, "can't read '/': Is a directory"),
    Case(
      ["calibrate", Repository.model("tiny-qwen3"), "--dry-run", "--threads", huge], 64, "--threads from 1 to 1024"),
    Case(["bench", "bandwidth", "--threads", huge], 64, "--threads from 1 to 1024"),
    Case(["bench", "attention", "--contexts", "64", huge], 64, "--contexts to be between 1 and 16777216"),
    Case(["bench", "encode", "--rows", "9223372036854775792"], 64, "--rows to be a positive multiple of 16"),
    Case(["bench", "decode", "-d", huge], 64, "--depth as numbers from 0 to"),
    Case(["bench", "decode", "-n", huge], 64, "expected from 1 to"),
    Case(["bench", "prefill", "--chunked-prefill-size", "0"], 64, "--chunked-prefill-size of at least 1"),
    Case(["bench", "accuracy", "--problems", #filePath], 65, "line 1: "),
  ]

  @Test(arguments: cases)
  func oneSentenceAndAnExitCode(_ example: Case) throws {
    let run = try Command.run(example.arguments)
    #expect(run.status == example.status, "\(run.errors)")
    #expect(run.errors.contains(example.message), "\(run.errors)")
    #expect(run.output.isEmpty)
  }

  /// Results that can't be written are a failure, not a success without output.
  @Test func outputThatCannotBeWritten() throws {
    for arguments in [["formats"], ["detokenize", "5"], ["generate", "-n", "1", "hello"]] {
      let run = try Command.run(arguments, outputPath: "/dev/full")
      #expect(run.status == 69 && run.errors.contains("can't write standard output: No space left"), "\(run.errors)")
    }
  }

  @Test func promptThatIsNotText() throws {
    let run = try Command.run(["generate", "-"], input: [0x4D, 0xFF, 0x61])
    #expect(run.status == 65 && run.output.isEmpty)
    #expect(run.errors.contains("expected standard input to be UTF-8 text"), "\(run.errors)")
    // The replacement character itself is text.
    #expect(try Command.run(["generate", "-", "-n", "1"], input: Array("\u{FFFD}".utf8)).status == 0)
  }

  /// A prompt longer than the context is refused with both numbers.
  @Test func promptLongerThanTheContext() throws {
    let run = try Command.run(["generate", "-"], input: Array(String(repeating: "coin ", count: 9000).utf8))
    #expect(run.status == 65)
    #expect(run.errors.contains("8192"))
  }
}
