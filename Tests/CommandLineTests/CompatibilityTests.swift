import TestSupport
import Testing

/// What works with what, asked on the command line.
@Suite struct CompatibilityTests {
  struct Case: CustomTestStringConvertible, Sendable {
    let arguments: [String]
    let status: Int32
    /// Each must stand in what is printed: on stdout where it works, on stderr where it doesn't.
    let parts: [String]
    var testDescription: String { arguments.joined(separator: " ") }

    init(_ arguments: [String], _ status: Int32, _ parts: [String]) {
      self.arguments = arguments
      self.status = status
      self.parts = parts
    }
  }

  private static let deepSeek = Repository.model("tiny-deepseek-v3")

  static let cases = [
    Case(["backends", "--why", "kv=nvfp4"], 0, ["this works on cpu", "prefill on cpu", "keys in nvfp4"]),
    Case(
      ["backends", "--why", "prefill=cpu,decode=reference,kv=mxfp4,rope=fp8", "--model", deepSeek], 0,
      ["the latent in mxfp4", "the rotary key in fp8_e4m3", "warning: prefill on cpu and decode on reference"]),
    Case(
      ["backends", "--why", "prefill=cpu,decode=cuda,kv=nvfp4"], 64,
      ["expected an NVIDIA GPU; try --attention-backend cpu", "one cache in two memories"]),
    Case(
      ["backends", "--device", "cuda:7.5", "--why", "decode=cuda,kv=f32,head_dim=80,page_size=48"], 64,
      ["compute capability 7.5", "keys in f32", "keys of 80 values", "pages of 48 tokens: expected 16, 32"]),
    Case(
      ["backends", "--why", "kv=mxfp4,head_dim=80"], 64, ["expected a multiple of 32; try --kv-cache-dtype-k bf16"]),
    Case(["backends", "--why", "kv=turboquant"], 64, ["try nvfp4, the nearest to it"]),
    Case(["backends", "--why", "kvs=nvfp4"], 64, ["unknown name 'kvs' in --why"]),
    Case(["backends", "--device", "tpu"], 64, ["unknown device 'tpu'; expected cpu"]),
    Case(["check-launch", "--mha", "--compute-capability", "10.0", "--", "--kv-cache-dtype=nvfp4"], 0, ["starts"]),
    Case(
      ["check-launch", "--model", deepSeek, "--compute-capability", "10.0", "--", "--kv-cache-dtype", "nvfp4"], 1,
      ["refuses", "nvfp4 with MLA", "instead: --kv-cache-dtype fp4_mx_block16"]),
    Case(["check-launch", "--", "--kv-cache-dtype", "nvfp4"], 64, ["expected one of --mla, --mha or --model DIR"]),
    Case(["check-launch", "--engine", "vllm", "--mha"], 64, ["unknown engine 'vllm'; expected sglang"]),
    Case(["check-launch", "--rules"], 0, ["| one backend for both, MLA |"]),
  ]

  @Test(arguments: cases) func answers(_ example: Case) throws {
    let run = try Command.run(example.arguments)
    #expect(run.status == example.status, "\(run.errors)")
    let text = example.status <= 1 ? run.output : run.errors
    for part in example.parts { #expect(text.contains(part), "\(part) in \(text)") }
    #expect(example.status <= 1 || run.output.isEmpty)
  }

  /// An SVG is drawn with a bar for each side of each layer.
  @Test func calibrationIsDrawn() throws {
    let folder = try TemporaryFolder()
    let path = folder.file("ranges.svg")
    let run = try Command.run([
      "calibrate", Self.deepSeek, "--dry-run", "--max-tokens", "24", "--svg", path, "--threads", "1",
    ])
    #expect(run.status == 0, "\(run.errors)")
    let lines = run.output.split(separator: "\n")
    #expect(lines.count == 1 + 2 * 6 && lines[0].hasPrefix("layer  side    amax"))
    let svg = try readText(path)
    #expect(svg.hasPrefix("<svg ") && svg.hasSuffix("</svg>\n"))
    // Four marks a side, and the legend's two.
    #expect(svg.split(separator: "<rect x=").count - 1 == 4 * 2 * 6 + 2)
  }
}
