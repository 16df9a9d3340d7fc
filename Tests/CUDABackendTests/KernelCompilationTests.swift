import CUDABackend
import CUDASupport
import Testing

#if canImport(Glibc)
  import Glibc
#endif

/// The compiler, or the printed reason why there is none.
private let compiler: NVRTC? = {
  do { return try NVRTC.load() } catch {
    print("skipping the compilation of the kernels: \(error)")
    return nil
  }
}()

/// No GPU is needed to see that the kernels compile, and that none spills registers on the GPU they are tuned for.
@Suite struct KernelCompilationTests {
  /// All of them take minutes; NIBBLE_COMPILE_ALL=1 asks for that.
  private static let compilesAll = getenv("NIBBLE_COMPILE_ALL") != nil

  private static let cases: [(KernelInstance, String)] = {
    let instances = CUDAAttention.instances
    if compilesAll { return CUDAAttention.architectures.flatMap { target in instances.map { ($0, target) } } }
    // The headline kernel, one of each file, and each architecture once.
    func isHeadline(_ instance: KernelInstance) -> Bool {
      Set(instance.defines.map { "\($0.name)=\($0.value)" })
        .isSuperset(
          of: instance.entry == "nb_decode"
            ? ["NB_RECIPE_K=3", "NB_DIM=128", "NB_ROWS=16"] : ["NB_RECIPE_K=3", "NB_DIM=128"])
    }
    let latents: Set<KernelInstance.Define> = [.init("NB_RECIPE_LATENT", 3), .init("NB_RECIPE_ROPE", 1)]
    let headline = instances.filter {
      isHeadline($0) || $0.entry == "nb_latent_merge" || latents.isSubset(of: $0.defines)
    }
    return headline.map { ($0, CUDAAttention.architectures[0]) }
      + CUDAAttention.architectures.dropFirst().flatMap { target in
        headline.filter { $0.entry == "nb_dequantize" || $0.entry == "nb_latent_decode" && target == "sm_80" }.map {
          ($0, target)
        }
      }
  }()

  @Test(.enabled(if: compiler != nil)) func kernelsCompileWithoutSpills() async throws {
    let compiler = try #require(compiler)
    let sources = KernelSources.embedded
    await withTaskGroup(of: Void.self) { group in
      for (instance, architecture) in Self.cases {
        group.addTask {
          do {
            let output = try compiler.compile(instance, from: sources, architecture: architecture)
            let report = ResourceReport.parse(output.log).first { $0.kernel == instance.entry }
            #expect(report != nil, "\(instance): \(output.log)")
            if let report, architecture == CUDAAttention.architectures[0] {
              #expect(report.spillStoreBytes == 0 && report.spillLoadBytes == 0, "\(instance) spills: \(report)")
            }
            if let report, Self.compilesAll {
              print(
                "\(architecture) \(instance): \(report.registers) registers, \(report.sharedBytes) bytes shared,",
                "\(report.stackBytes) stack, \(report.spillStoreBytes) spilled")
            }
          } catch { Issue.record("\(instance) for \(architecture): \(error)") }
        }
      }
    }
  }

  @Test func thereIsAnInstanceForEveryKernel() {
    // At five head dimensions: five decoders with two row tiles, six encoders of three types of rows, five dequantisers. Of latent
    // attention, with rotary keys in BF16 or in the latent's recipe: 9 decoders, 11 encoders, the merge.
    let instances = CUDAAttention.instances
    #expect(instances.count == 5 * (5 * 2 + 6 * 3 + 5) + 9 + 11 * 3 + 1)
    #expect(Set(instances).count == instances.count)
  }
}
